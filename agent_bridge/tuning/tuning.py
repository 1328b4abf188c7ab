"""A tuning run's configuration: which numbers of a stack are searched, and on which episodes they are judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent_bridge.gate.gatefile import load_gate
from controllers.stack import build_stack
from runtime import config
from runtime.errors import SurefootError
from runtime.run import LATENCIES
from runtime.seeds import reporting_seeds


@dataclass(frozen=True)
class Parameter:
    """One number of the stack, searched between two bounds."""

    key: str
    """Dotted, as in `--set`."""
    low: float
    high: float
    log: bool
    start: float

    def value(self, x: float) -> float:
        """The number at a place x in [0, 1] between the bounds."""
        if self.log:
            return float(self.low * (self.high / self.low) ** x)
        return float(self.low + (self.high - self.low) * x)

    def place(self, value: float) -> float:
        """Inverse of `value`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Stage:
    """One round of a generation: whoever is still in it runs so many episodes of so many ticks."""

    ticks: int
    episodes: int
    keep: float
    """Share of the candidates that enter the next stage."""


@dataclass(frozen=True)
class Tuning:
    """What is tuned, and how."""

    stack: str
    sets: tuple[str, ...]
    """Changes to the stack that hold for every candidate."""
    latency: str
    parameters: tuple[Parameter, ...]
    stages: tuple[Stage, ...]
    seeds: range
    population: int
    generations: int
    step: float
    """First step size, in parts of each parameter's range."""
    seed: int
    """Of the search itself."""

    def assignments(self, x: np.ndarray) -> tuple[str, ...]:
        """The changes that make a candidate from its place (parameters,) in the unit cube."""
        found = [f"{p.key}={p.value(float(v))!r}" for p, v in zip(self.parameters, x, strict=True)]
        return (*self.sets, *found)

    def episode_seeds(self, generation: int) -> list[int]:
        """The seeds of a generation, common to all its candidates; a longer stage begins with a shorter one's."""
        count = max(stage.episodes for stage in self.stages)
        return [self.seeds[(generation * count + i) % len(self.seeds)] for i in range(count)]


def read_tuning(path: Path) -> Tuning:
    """Read a tuning run's file, and check that its stack can be built where the search begins.

    Raises:
        SurefootError: with what is wrong, where, and what would be right.
    """
    doc = config.Section(config.load(path), str(path))
    stack, sets = doc.take("stack", config.text), doc.take("set", _texts, ())
    latency = doc.take("latency", config.text, "one_tick")
    if latency not in LATENCIES:
        raise SurefootError(f"{path}: latency: expected one of {', '.join(LATENCIES)}, found {latency!r}")
    seeds = _seeds(doc.section("seeds"))
    where = config.find("stacks", stack)
    document = config.load(where)
    for assignment in sets:
        config.override(document, assignment)
    section = doc.section("parameters")
    parameters = tuple(_parameter(key, section.section(key), document) for key in map(str, section.data))
    if not parameters:
        raise SurefootError(f"{path}: parameters: nothing to tune")
    stages = tuple(_stage(value, f"{path}: stages[{i}]") for i, value in enumerate(doc.take("stages", _list)))
    if not stages:
        raise SurefootError(f"{path}: stages: at least one")
    tuning = Tuning(
        stack, sets, latency, parameters, stages, seeds,
        population=doc.take("population", config.integer(4, 1000), 8),
        generations=doc.take("generations", config.integer(1, 100_000), 20),
        step=doc.take("step", config.number(1e-6, 1.0), 0.2),
        seed=doc.take("seed", config.integer(1, 2**31 - 1), 1),
    )  # fmt: skip
    doc.finish()
    for assignment in tuning.assignments(np.array([p.place(p.start) for p in parameters])):
        config.override(document, assignment)
    _require_free(seeds, build_stack(where.stem, document, where).robot.name, f"{path}: seeds")
    return tuning


def _parameter(key: str, doc: config.Section, document: dict[str, Any]) -> Parameter:
    low, high = doc.take("low", config.number()), doc.take("high", config.number())
    log = doc.take("log", config.truth, False)
    start = doc.take("start", config.number(), None)
    doc.finish()
    if start is None:
        found = config.at(document, key.split("."), doc.where)
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise SurefootError(f"{doc.where}: the stack holds no number there ({found!r}); give a `start`")
        start = float(found)
    if not low < high or (log and low <= 0):
        raise SurefootError(f"{doc.where}: expected low < high{', both above 0' if log else ''}, found {low}, {high}")
    if not low <= start <= high:
        raise SurefootError(f"{doc.where}: the search begins at {start:g}, outside [{low:g}, {high:g}]")
    return Parameter(key, low, high, log, start)


def _stage(value: object, where: str) -> Stage:
    doc = config.Section(value, where)
    stage = Stage(doc.take("ticks", config.integer(1, 10**6)), doc.take("episodes", config.integer(1, 1000), 1),
                  doc.take("keep", config.number(0.0, 1.0), 0.5))  # fmt: skip
    doc.finish()
    return stage


def _seeds(doc: config.Section) -> range:
    first, count = doc.take("first", config.integer(0, 10**9)), doc.take("count", config.integer(1, 10**6))
    doc.finish()
    return range(first, first + count)


def _require_free(seeds: range, robot: str, where: str) -> None:
    """Refuses seeds that are quoted or judged by: those of reports, and of the robot's gate."""
    kept = {"reporting (configs/seeds.yaml)": reporting_seeds()}
    if robot in config.available("gates"):
        gate = load_gate(robot)
        kept |= {f"the {split} (configs/gates/{robot}.yaml)": gate.seeds[split] for split in ("gate", "holdout")}
    for what, taken in kept.items():
        if seeds.start < taken.stop and taken.start < seeds.stop:
            raise SurefootError(
                f"{where}: seeds {taken.start} to {taken.stop - 1} are kept for {what}; tune on others, such as "
                f"first: {taken.stop + 1000}"
            )


def _texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(config.text(item, f"{where}[{i}]") for i, item in enumerate(_list(value, where)))


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise SurefootError(f"{where}: expected a list, found {value!r}")
    return value
