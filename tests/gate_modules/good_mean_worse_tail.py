# stage: score
# why: worst tenth
"""Limb: faster by a fifth, but from one start in eight it only walks."""

import math
from dataclasses import dataclass

from controllers.layer import param, state

SUBSTEPS = 10
FREQUENCY = 5.0  # [Hz]: four ticks a cycle
JOINT = ("leg", "segment")


@dataclass(frozen=True)
class Params:
    """Two frequencies and the Fourier coefficients of every joint."""

    stance_frequency: float = param(4.0, unit="Hz", range=(0, 20), doc="Cycles per second in stance.")
    swing_frequency: float = param(4.0, unit="Hz", range=(0, 20), doc="Cycles per second in swing.")
    centre: float = param(0.0, unit="rad", range=(-4, 4), doc="Mean angle.", shape=JOINT)
    sin1: float = param(0.0, unit="rad", range=(-4, 4), doc="First harmonic, sine.", shape=JOINT)
    cos1: float = param(0.0, unit="rad", range=(-4, 4), doc="First harmonic, cosine.", shape=JOINT)
    sin2: float = param(0.0, unit="rad", range=(-4, 4), doc="Second harmonic, sine.", shape=JOINT)
    cos2: float = param(0.0, unit="rad", range=(-4, 4), doc="Second harmonic, cosine.", shape=JOINT)
    bias_share: float = param(0.0, unit="1", range=(-1, 1), doc="Each joint's share of the task's bias.", shape=JOINT)


@dataclass
class State:
    """The clock."""

    phase: float = state(0.0, unit="rad", doc="Phase of the cycle, unwrapped.")
    begun: float = state(0.0, unit="1", doc="1 after the first tick.")
    weak: float = state(0.0, unit="1", doc="1 where the start was a bad one.")


def update(p, s, x, c):
    """Advance the clock, then write the joint targets."""
    if s.begun < 1.0:
        s.begun = 1.0
        s.weak = 1.0 if x.joint.position[0, 1] > 0.075 else 0.0
    strength = 0.75 if s.weak > 0.0 else 1.0
    for _ in range(SUBSTEPS):
        s.phase += 2.0 * math.pi * FREQUENCY * (x.period / SUBSTEPS)
    sin1, cos1 = math.sin(s.phase), math.cos(s.phase)
    sin2, cos2 = math.sin(2.0 * s.phase), math.cos(2.0 * s.phase)
    legs, segments = c.limb.target.shape
    for leg in range(legs):
        for segment in range(segments):
            wave = p.sin1[leg, segment] * sin1 + p.cos1[leg, segment] * cos1
            wave += p.sin2[leg, segment] * sin2 + p.cos2[leg, segment] * cos2
            centre = p.centre[leg, segment] + p.bias_share[leg, segment] * c.task.bias
            c.limb.target[leg, segment] = centre + strength * c.task.amplitude * wave + c.balance.offset[leg, segment]
