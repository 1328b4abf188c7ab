"""What agents may spend and who lets their work onto a robot: `configs/bridge.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from runtime import config
from runtime.errors import SurefootError, nearest

Word = TypeVar("Word", bound=StrEnum)


class Promotion(StrEnum):
    """What happens to a version that the gate accepted."""

    AUTOMATIC = "automatic"
    """It is swapped in."""
    HELD = "held"
    """A person approves it: `surefoot approve TRIAL`."""
    NEVER = "never"
    """It stays in the records."""


class Commit(StrEnum):
    """When a promoted version takes over."""

    NOW = "now"
    EPISODE = "episode"


@dataclass(frozen=True)
class Budget:
    """What one agent may spend on one stack."""

    trials: int
    environment_steps: int
    wall_time: float
    """[s]"""
    tokens: int | None = None
    """None: not bounded."""
    cost: float | None = None
    """[US dollars]; None: not bounded."""


@dataclass(frozen=True)
class Policy:
    """The file, read."""

    budget: Budget
    probe_seeds: int
    probe_steps: int
    probe_variants: int
    promotion: dict[str, Promotion]
    commit: dict[str, Commit]

    def commit_for(self, robot: str) -> Commit:
        """When a version takes over on a robot."""
        return self.commit.get(robot, self.commit["default"])

    def promotion_for(self, robot: str) -> Promotion:
        """The policy of a robot, or the default."""
        return self.promotion.get(robot, self.promotion["default"])


def load_policy(path: Path | None = None) -> Policy:
    """Reads the policy of this installation, or of another file.

    Raises:
        SurefootError: A key is missing, unknown or of a wrong kind.
    """
    path = path or config.CONFIGS / "bridge.yaml"
    doc = config.Section(config.load(path), str(path))
    spend, probe = doc.section("budget"), doc.section("probe")
    budget = Budget(
        trials=spend.take("trials", config.integer(0, 10**9)),
        environment_steps=int(spend.take("environment_steps", config.number(0, 1e15))),
        wall_time=spend.take("wall_time", config.number(0, 1e9, "s")),
    )
    seeds = probe.take("seeds", config.integer(1, 1000))
    steps = int(probe.take("environment_steps", config.number(1, 1e12)))
    variants = probe.take("variants", config.integer(1, 10000))
    promotion = doc.take("promotion", _by_robot(Promotion))
    commit = doc.take("commit", _by_robot(Commit))
    for section in (spend, probe, doc):
        section.finish()
    return Policy(budget, seeds, steps, variants, promotion, commit)


def _by_robot(kind: type[Word]) -> Callable[[object, str], dict[str, Word]]:
    """A reader of one word per robot, with a default."""

    def word(value: object, where: str) -> Word:
        if value not in tuple(kind):
            raise SurefootError(f"{where}: unknown policy {value!r}; {nearest(str(value), kind)}")
        return kind(str(value))

    def read(value: object, where: str) -> dict[str, Word]:
        section = config.Section(value, where)
        if "default" not in section.data:
            raise SurefootError(f"{where}: key 'default' is missing: {', '.join(kind)}")
        return {str(robot): section.take(str(robot), word) for robot in section.data}

    return read
