"""A gate's file: seeds, stages and thresholds, read from `configs/gates/ROBOT.yaml` and checked first."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_bridge.gate.conditions import Condition, read_condition
from agent_bridge.gate.statistics import FEWEST_TO_ACCEPT, Design
from runtime import config
from runtime.errors import SurefootError, nearest
from runtime.seeds import reporting_seeds
from runtime.verdicts import gate_hash

STAGES = ("static", "smoke", "golden", "safety", "latency", "score", "mismatch")
"""Cheapest first; each is named in every gate's file."""
SPLITS = ("dev", "gate", "holdout")
BACKENDS = ("loky", "sequential", "multiprocessing", "ray")
"""Those of joblib that run one episode at a time in a process, which keeps one guest, plant and monitor of a kind."""
AGAIN = 4
"""A fault that is run again takes seeds up to so many times its episodes."""


@dataclass(frozen=True)
class Static:
    """Complexity budget of a layer; over it, only a change that shrinks the layer is taken."""

    nodes: int
    branches: int
    lines: int


@dataclass(frozen=True)
class Smoke:
    """How long the worker is watched, and how long it may take."""

    ticks: int
    start: float
    """Until it has compiled and answered once [s]."""
    answer: float
    """Until each later answer [s]."""


@dataclass(frozen=True)
class Golden:
    """Length of the golden traces."""

    episodes: int
    ticks: int


@dataclass(frozen=True)
class Safety:
    """The battery of faults, and how much worse than its parent a candidate may look by chance."""

    episodes: int
    """Per fault."""
    ticks: int
    alpha: float
    """Level at which more falls or interventions than the parent's count."""
    margin: float
    """Share of ticks by which interventions may rise."""
    faults: tuple[Condition, ...]


@dataclass(frozen=True)
class Latency:
    """How much slower than its parent an answer may be."""

    ticks: int
    repeats: int
    """Each tick is timed this often; its fastest answer counts, so that the machine's own noise does not."""
    ratio: float
    slack: float
    """[s]"""
    deadline: float
    """Of an answer, as a fraction of the control period."""


@dataclass(frozen=True)
class Suite:
    """An older ability that must stay."""

    condition: Condition
    looks: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """The gain that must be shown, and the fall that is tolerated on older suites."""

    design: Design
    delta: float
    """Gain to beat on the target, as a fraction of the parent's mean."""
    fall: float
    """Fall tolerated on an older suite, as a fraction of the parent's mean there."""
    suites: tuple[Suite, ...]
    larger: float
    """Growth in syntax nodes, as a fraction, that asks for a gain in return."""
    ticks: int | None
    """Length of an episode, here and on mismatched plants; None: the robot's."""


@dataclass(frozen=True)
class Mismatch:
    """Plants that differ from the planner's model."""

    looks: tuple[int, ...]
    fall: float
    plants: tuple[Condition, ...]


@dataclass(frozen=True)
class Gate:
    """All that a gate was told."""

    name: str
    robot: str
    path: Path
    hash: str
    backend: str
    jobs: int
    """Processes side by side; -1: one per core."""
    seeds: dict[str, range]
    static: Static
    smoke: Smoke
    golden: Golden
    safety: Safety
    latency: Latency
    score: Score
    mismatch: Mismatch

    def seed(self, split: str, index: int) -> int:
        """The seed of a pair."""
        return self.seeds[split][index]


def load_gate(name: str) -> Gate:
    """Reads a gate by the name of its robot, or by the path of its file.

    Raises:
        SurefootError: An unknown stage, thresholds that contradict each other, seeds in two splits, and the like.
    """
    path = config.find("gates", name)
    doc = config.Section(config.load(path), str(path))
    doc.take("about", config.text, "")
    robot = doc.take("robot", config.text)
    if robot not in config.available("robots"):
        raise SurefootError(f"{path}: robot: unknown robot {robot!r}; {nearest(robot, config.available('robots'))}")
    backend = doc.take("backend", _one_of(BACKENDS), "loky")
    jobs = doc.take("jobs", config.integer(-1, 1024), -1)
    seeds = _seeds(doc.section("seeds"))
    stages = doc.section("stages")
    for key in stages.data:
        if key not in STAGES:
            raise SurefootError(f"{stages.where}: unknown stage {key!r}; {nearest(str(key), STAGES)}")
    read: dict[str, Callable[[config.Section], Any]] = {
        "static": _static, "smoke": _smoke, "golden": _golden, "safety": _safety, "latency": _latency,
        "score": _score, "mismatch": _mismatch,
    }  # fmt: skip
    sections = {stage: stages.section(stage) for stage in STAGES}
    parts = {stage: read[stage](section) for stage, section in sections.items()}
    for section in (*sections.values(), stages, doc):
        section.finish()
    _require_seeds(path, seeds, **{stage: parts[stage] for stage in ("golden", "safety", "score", "mismatch")})
    return Gate(path.stem, robot, path, gate_hash(path), backend, jobs, seeds, **parts)


def _require_seeds(
    path: Path, seeds: dict[str, range], golden: Golden, safety: Safety, score: Score, mismatch: Mismatch
) -> None:  # fmt: skip
    """Refuses a stage that would run out of seeds."""
    score_pairs = max(looks[-1] for looks in (score.design.looks, *(suite.looks for suite in score.suites)))
    for stage, split, count, why in (
        ("score", "gate", score_pairs, ""),
        ("mismatch", "gate", mismatch.looks[-1], ""),
        ("safety", "gate", AGAIN * safety.episodes, f" ({AGAIN} times its {safety.episodes} episodes, where in doubt)"),
        ("golden", "dev", golden.episodes, ""),
    ):
        if count > len(seeds[split]):
            has = f"seeds.{split} has {len(seeds[split])} seeds"
            raise SurefootError(f"{path}: stages.{stage} looks at {count} pairs{why}, {has}")


def _one_of(names: tuple[str, ...]) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        if value not in names:
            raise SurefootError(f"{where}: unknown {value!r}; {nearest(str(value), names)}")
        return str(value)

    return read


def _seeds(doc: config.Section) -> dict[str, range]:
    found, reserved = dict[str, range](), reporting_seeds()
    for split in SPLITS:
        part = doc.section(split)
        first = part.take("first", config.integer(0, 2**31))
        found[split] = range(first, first + part.take("count", config.integer(1, 100_000)))
        part.finish()
        if set(found[split]) & set(reserved):
            raise SurefootError(
                f"{doc.where}.{split}: seeds {reserved.start} to {reserved.stop - 1} are kept for reporting "
                "(configs/seeds.yaml); take others"
            )
        for other in list(found)[:-1]:
            shared = range(max(found[other].start, first), min(found[other].stop, found[split].stop))
            if shared:
                raise SurefootError(
                    f"{doc.where}: seeds {shared.start} to {shared.stop - 1} are in {other} and in {split}; "
                    "a seed belongs to one split"
                )
    doc.finish()
    return found


def _static(doc: config.Section) -> Static:
    return Static(*(doc.take(key, config.integer(1, 100_000)) for key in ("nodes", "branches", "lines")))


def _smoke(doc: config.Section) -> Smoke:
    seconds = config.number(1e-3, 3600.0, "s")
    ticks = doc.take("ticks", config.integer(10, 10_000))
    return Smoke(ticks, doc.take("start", seconds), doc.take("answer", seconds))


def _golden(doc: config.Section) -> Golden:
    return Golden(doc.take("episodes", config.integer(1, 64)), doc.take("ticks", config.integer(10, 100_000)))


def _safety(doc: config.Section) -> Safety:
    faults = _conditions(doc.section("faults"))
    return Safety(
        doc.take("episodes", config.integer(1, 64)), doc.take("ticks", config.integer(10, 100_000)),
        doc.take("alpha", config.number(1e-6, 0.5)), doc.take("margin", config.number(0.0, 1.0)), faults,
    )  # fmt: skip


def _latency(doc: config.Section) -> Latency:
    found = Latency(
        doc.take("ticks", config.integer(20, 100_000)), doc.take("repeats", config.integer(1, 100)),
        doc.take("ratio", config.number(1.0, 100.0)), doc.take("slack", config.number(0.0, 1.0, "s")),
        doc.take("deadline", config.number(0.0, 1.0)),
    )  # fmt: skip
    if found.deadline == 0.0:
        raise SurefootError(f"{doc.where}.deadline: an answer that may take no time is never in time; at most 1 period")
    return found


def _score(doc: config.Section) -> Score:
    design = Design(
        looks=_looks(doc), alpha=doc.take("alpha", config.number(1e-6, 0.5)),
        tail_alpha=doc.take("tail_alpha", config.number(1e-6, 0.5)),
    )  # fmt: skip
    delta, fall = doc.take("delta", config.number(0.0, 10.0)), doc.take("fall", config.number(1e-6, 1.0))
    suites = []
    older = doc.section("suites", {})
    for name in older.data:
        part = older.section(str(name))
        looks = _looks(part)
        suites.append(Suite(read_condition(str(name), part), looks))
    return Score(
        design,
        delta,
        fall,
        tuple(suites),
        doc.take("larger", config.number(0.0, 100.0)),
        doc.take("ticks", config.integer(10, 100_000), None),
    )


def _mismatch(doc: config.Section) -> Mismatch:
    return Mismatch(
        _looks(doc), doc.take("fall", config.number(1e-6, 1.0)), _conditions(doc.section("plants"))
    )  # fmt: skip


def _looks(doc: config.Section) -> tuple[int, ...]:
    def read(value: object, where: str) -> tuple[int, ...]:
        one = config.integer(2, 100_000)
        looks = tuple(one(v, f"{where}[{i}]") for i, v in enumerate(value if isinstance(value, list) else [value]))
        if any(a >= b for a, b in itertools.pairwise(looks)):
            raise SurefootError(f"{where}: looks follow one another with more pairs each, found {list(looks)}")
        if looks[-1] < FEWEST_TO_ACCEPT:
            raise SurefootError(
                f"{where}: the last look has {looks[-1]} pairs, but nothing is accepted below {FEWEST_TO_ACCEPT}"
            )
        return looks

    return doc.take("looks", read)


def _conditions(doc: config.Section) -> tuple[Condition, ...]:
    if not doc.data:
        raise SurefootError(f"{doc.where}: is empty; name at least one")
    return tuple(read_condition(str(name), doc.section(str(name))) for name in doc.data)
