"""Lockstep episodes: latency, prediction, falls, and an unstable plant."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from runtime.episode import EpisodeResult, episode_ticks, run_episode
from runtime.falls import FallDetector
from runtime.guest import Guest
from runtime.plants import make_plant
from tests.controllers.kit import episode, recorded, stack


@pytest.mark.parametrize("name", ["ant-rhythm", "half_cheetah-reference"])
def test_a_prediction_reaches_the_plants_next_state(name: str) -> None:
    """Up to the constraint solver's tolerance: the plant's solver starts from its last step, the guest's from zero."""
    rows, guest = recorded(name)[:300], Guest(stack(name), None, None)
    for now, then in pairwise(rows):
        qpos, qvel, ahead, _ = guest.predict(now["qpos"], now["qvel"], now[None]["signals"].copy(), now["sent"])
        np.testing.assert_allclose(qpos, then["qpos"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(qvel, then["qvel"], rtol=0, atol=1e-10)
        assert (ahead["tick"][0], ahead["time"][0]) == (then["signals"]["tick"], then["signals"]["time"])
        np.testing.assert_allclose(ahead["foot"]["force"][0], then["signals"]["foot"]["force"], rtol=1e-6, atol=1e-6)


def test_with_a_tick_of_latency_a_plan_is_made_from_the_state_that_it_will_meet() -> None:
    bare = stack("half_cheetah-rhythm")
    late = episode(bare, 20, 3, one_tick=True)
    guest = Guest(bare, None, None)
    answer = np.zeros(bare.robot.shape)  # nothing has been decided when the first tick needs a command
    for row in late:
        np.testing.assert_array_equal(row["sent"], answer)
        guest.answer(*guest.predict(row["qpos"], row["qvel"], row[None]["signals"].copy(), row["sent"]))
        answer = guest.commands["joint"]["control"].copy()
    assert not np.array_equal(late["sent"], episode(bare, 20, 3)["sent"])


def keep(rows: list[bytes], row: np.ndarray) -> None:
    rows.append(row.tobytes())


def test_the_same_episode_twice_is_the_same_bytes() -> None:
    bare, seen = stack("ant-rhythm"), []
    guest, plant = Guest(bare, None, None), make_plant("native", bare.robot)
    for seed in (4, 5, 4):  # the same objects, with another episode in between
        rows: list[bytes] = []
        run_episode(guest, plant, EpisodeResult(seed), steps=30, record=partial(keep, rows))
        seen.append(rows)
    assert seen[0] == seen[2] != seen[1]


def test_the_total_is_the_sum_of_its_terms() -> None:
    bare, result = stack("ant-rhythm"), EpisodeResult(3)
    seen: list[int] = []
    run_episode(Guest(bare, None, None), make_plant("native", bare.robot), result, steps=50,
                on_tick=lambda so_far: seen.append(so_far.steps))  # fmt: skip
    assert seen == list(range(1, 51))
    assert set(result.terms) == {"forward", "healthy", "control", "contact"}
    assert math.isclose(result.total, sum(result.terms.values()), rel_tol=1e-12)
    assert (result.upright, result.fallen, result.error) == (50, False, None)
    assert len(result.decision_ns) == 50


def test_an_unstable_plant_is_an_error_of_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    bare, result = stack("half_cheetah-rhythm"), EpisodeResult(3)
    plant = make_plant("native", bare.robot)

    def blow_up(so_far: EpisodeResult) -> None:
        if so_far.steps == 5:
            plant.data.qvel[0] = 1e300  # type: ignore[attr-defined]

    run_episode(Guest(bare, None, None), plant, result, on_tick=blow_up)
    assert result.steps == 5
    assert "diverged" in str(result.error)


def test_an_episode_is_as_long_as_the_environments_own_at_any_rate() -> None:
    assert episode_ticks(stack("half_cheetah-rhythm")) == 1000
    assert episode_ticks(stack("half_cheetah-rhythm", "rate=100 Hz")) == 5000


def test_only_lying_on_its_back_for_a_second_is_a_fall() -> None:
    tilted: list[Any] = [2.0] * 19
    falls = FallDetector(planar=True, period=0.05)
    assert not any(falls.fallen(tilt, False) for tilt in [*tilted, 1.0, *tilted])
    assert falls.fallen(2.0, False)
    falls = FallDetector(planar=False, period=0.05)
    assert not any(falls.fallen(2.0, False) for _ in range(100))
    assert falls.fallen(0.0, True)
