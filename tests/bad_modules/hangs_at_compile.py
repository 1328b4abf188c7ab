# ends: compile
# why: deadline
# slot: joint
"""Joint: a tuple of 262,144 numbers, which types and inlines without end."""

from dataclasses import dataclass

from controllers.layer import param, state


@dataclass(frozen=True)
class Params:
    """Gains."""

    kp: float = param(1.0, unit="1/rad", range=(0, 100), doc="Control per position error.")


@dataclass
class State:
    """Time."""

    ticks: float = state(0.0, unit="1", doc="Ticks since the start.")


def update(p, s, x, c):
    """Write the control of every joint."""
    a0 = (s.ticks, s.ticks, s.ticks, s.ticks)
    a1 = a0 + a0
    a2 = a1 + a1
    a3 = a2 + a2
    a4 = a3 + a3
    a5 = a4 + a4
    a6 = a5 + a5
    a7 = a6 + a6
    a8 = a7 + a7
    a9 = a8 + a8
    a10 = a9 + a9
    a11 = a10 + a10
    a12 = a11 + a11
    a13 = a12 + a12
    a14 = a13 + a13
    a15 = a14 + a14
    a16 = a15 + a15
    s.ticks = a16[0]
    legs, segments = c.joint.control.shape
    for leg in range(legs):
        for segment in range(segments):
            error = c.joint.target[leg, segment] - x.joint.position[leg, segment]
            c.joint.control[leg, segment] = max(-1.0, min(1.0, p.kp * error))
