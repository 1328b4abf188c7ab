"""The terms of a planner's objective: small compiled functions of two consecutive states, named and weighted in YAML.

A term is larger for what it names; its weight says whether that is good. The objective is maximised. The score that
is reported for an episode is never this one but the environment's own reward.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from keyword import iskeyword
from typing import Any

import numpy as np
from numba import njit

from controllers.layer import param
from runtime import config
from runtime.errors import SurefootError, nearest
from runtime.records import Field, build_dtype


def _weight() -> Any:
    return param(0.0, unit="1", range=(-1e6, 1e6), doc="Factor of the term in the objective.")


@dataclass(frozen=True)
class Weight:
    """A term that has nothing but its weight."""

    weight: float = _weight()


@dataclass(frozen=True)
class Band:
    """A term about a range of heights."""

    weight: float = _weight()
    low: float = param(0.0, unit="m", range=(-10, 10), doc="Lowest height inside.")
    high: float = param(1.0, unit="m", range=(-10, 10), doc="Greatest height inside.")


@dataclass(frozen=True)
class Height:
    """A term about one height."""

    weight: float = _weight()
    target: float = param(0.0, unit="m", range=(-10, 10), doc="Height to keep.")


@dataclass(frozen=True)
class Free:
    """A term that is zero up to some angle."""

    weight: float = _weight()
    free: float = param(0.0, unit="rad", range=(0, 3.2), doc="Angle that costs nothing.")


@dataclass(frozen=True)
class Term:
    """A term by name: its function (w, x0, x1, c) -> value, its parameters, and when it is evaluated."""

    function: Callable[..., Any]
    params: type
    final: bool


TERMS: dict[str, Term] = {}


def _term(params: type, final: bool = False) -> Callable[[Callable[..., Any]], Any]:
    def register(function: Callable[..., Any]) -> Any:
        compiled = njit(error_model="numpy")(function)
        TERMS[function.__name__] = Term(compiled, params, final)
        return compiled

    return register


@_term(Weight)
def progress(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """Mean forward velocity over the tick [m/s]."""
    return (x1.torso.x - x0.torso.x) / (x1.time - x0.time)


@_term(Band)
def alive(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """1 while the torso's height is inside the band."""
    return 1.0 if w.low <= x1.torso.height <= w.high else 0.0


@_term(Band)
def outside(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """1 while the torso's height is outside the band."""
    return 0.0 if w.low <= x1.torso.height <= w.high else 1.0


@_term(Weight)
def effort(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """Sum of the squared controls."""
    total = 0.0
    for u in c.joint.control.flat:
        total += u * u
    return total


@_term(Weight)
def level(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """Roll squared plus pitch squared [rad^2]."""
    return x1.torso.roll**2 + x1.torso.pitch**2


@_term(Free)
def tilt(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """The tilt beyond the free angle, squared [rad^2]."""
    return max(0.0, x1.torso.tilt - w.free) ** 2


@_term(Weight)
def heading(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """The heading error squared [rad^2]."""
    turns = (x1.torso.yaw - c.task.heading) / (2.0 * math.pi)
    return (2.0 * math.pi * (turns - math.floor(turns + 0.5))) ** 2


@_term(Height)
def height(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """The squared distance of the torso's height from a target [m^2]."""
    return (x1.torso.height - w.target) ** 2


@_term(Weight, final=True)
def final_velocity(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """Forward velocity at the end of the horizon [m/s]."""
    return x1.torso.vx


@_term(Weight, final=True)
def final_joint_velocity(w: Any, x0: Any, x1: Any, c: Any) -> Any:
    """Sum of the squared joint velocities at the end of the horizon [rad^2/s^2]."""
    total = 0.0
    for v in x1.joint.velocity.flat:
        total += v * v
    return total


@dataclass(frozen=True)
class Objective:
    """The terms of one objective, in the order of its configuration."""

    names: tuple[str, ...]
    uses: tuple[str, ...]
    weights: np.ndarray
    """One record (1,): name of the term -> its parameters."""


def read_objective(document: object, where: str) -> Objective:
    """Read the `cost` section of a stack.

    Raises:
        SurefootError: an unknown term or key, or a value that is not finite.
    """
    doc = config.Section(document, where)
    names = tuple(map(str, doc.data))
    if not names:
        raise SurefootError(f"{where}: an objective needs at least one term; valid: {', '.join(TERMS)}")
    sections, uses, parts = [], [], []
    for name in names:
        if not name.isidentifier() or iskeyword(name):
            raise SurefootError(
                f"{where}: {name!r} cannot name a term: letters, digits and underscores, such as upright"
            )
        sections.append(doc.section(name))
        use = sections[-1].take("use", config.text, name)
        if use not in TERMS:
            raise SurefootError(f"{where}: unknown cost term {use!r}; {nearest(use, TERMS)}")
        uses.append(use)
        declared = [Field(f.name, f.metadata["unit"], (), f.metadata["doc"]) for f in fields(TERMS[use].params)]
        parts.append((name, build_dtype(declared, {})))
    weights = np.zeros(1, np.dtype(parts, align=True))
    for name, use, section in zip(names, uses, sections, strict=True):
        for field in fields(TERMS[use].params):
            low, high = field.metadata["range"]
            weights[name][field.name] = section.take(
                field.name, config.number(low, high, field.metadata["unit"]), field.default
            )
        section.finish()
    return Objective(names, tuple(uses), weights)
