"""Episodes into Minari's files: the one place that knows Minari's interface."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

from agent_bridge.records.export import Episode, metadata
from runtime.errors import SurefootError
from runtime.records import load_robot

DATASETS = "MINARI_DATASETS_PATH"


def write_dataset(name: str, episodes: Sequence[Episode], out: Path, robot: str) -> str:
    """Writes one dataset and returns its id.

    Raises:
        SurefootError: There is one of this name already, or Minari or the disk refuses.
    """
    with datasets_in(out):
        if name in minari.list_local_datasets():
            raise SurefootError(f"--name: {out / name} is there already; choose another name, or remove it")
        width = episodes[0].observations.shape[1]
        try:
            minari.create_dataset_from_buffers(
                dataset_id=name, buffer=[_buffer(i, e) for i, e in enumerate(episodes)],
                eval_env=load_robot(robot).environment,
                action_space=gymnasium.spaces.Box(-1.0, 1.0, (episodes[0].actions.shape[1],), np.float64),
                observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float64),
                algorithm_name="surefoot", author="surefoot", description=_description(episodes),
            )  # fmt: skip
        except (OSError, ValueError, TypeError) as error:
            raise SurefootError(f"{out / name}: {' '.join(str(error).split())}") from None
    return name


@contextmanager
def datasets_in(folder: Path) -> Iterator[None]:
    """Lets Minari look for datasets in a folder, and then again where it did."""
    before = os.environ.get(DATASETS)
    os.environ[DATASETS] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATASETS]
        else:
            os.environ[DATASETS] = before


def _buffer(number: int, episode: Episode) -> EpisodeBuffer:
    n = len(episode.actions)
    cut = np.zeros(n, bool)
    cut[-1] = True
    # Minari wants as many infos as observations: the last one, after the last action, repeats.
    infos = {key: np.concatenate([values, values[-1:]]) for key, values in episode.infos.items()}
    return EpisodeBuffer(
        id=number, seed=episode.seed, options={"origin": metadata(episode)}, observations=episode.observations,
        actions=episode.actions, rewards=episode.rewards.tolist(), terminations=[False] * n,
        truncations=cut.tolist(), infos=infos,
    )  # fmt: skip


def _description(episodes: Sequence[Episode]) -> str:
    runs = ", ".join(dict.fromkeys(e.run for e in episodes))
    return (
        f"Runs {runs} of Surefoot. Actions are those sent to the plant; infos hold requested_action, mode (0 guest, "
        "1 repeat, 2 hold, 3 damp, 4 cut), intervened, shaped, rules (bits), and version_SLOT, an index into the "
        "versions (hashes) of the episode's options."
    )
