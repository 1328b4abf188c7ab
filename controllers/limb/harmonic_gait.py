"""Limb: legs driven by one clock through three harmonics, with a stance warp and a clock that follows the speed.

Each leg has a phase offset. Its phase is warped so that the stance takes the fraction `duty` of the cycle; the joint
angles are sums of three harmonics of the warped phase, scaled apart in stance and swing. Clock and duty give way when
the robot runs faster than the task asks. Source: J. Weng, "Learning Beyond Gradients", 2026 (Ant).
"""

import math
from dataclasses import dataclass

from controllers.layer import param, state

HARMONICS = 3
SHAPE = (HARMONICS, "segment")


@dataclass(frozen=True)
class Params:
    """The shape of the cycle, its clock, and how legs mirror each other."""

    centre: float = param(0.0, unit="rad", range=(-2, 2), doc="Mean angle of each segment.", shape=("segment",))
    amplitude: float = param(0.0, unit="rad", range=(-2, 2), doc="Amplitude of each harmonic.", shape=SHAPE)
    shift: float = param(0.0, unit="rad", range=(-7, 7), doc="Phase of each harmonic's sine.", shape=SHAPE)
    stance_scale: float = param(1.0, unit="1", range=(0, 3), doc="Factor on the waves in stance.", shape=("segment",))
    swing_scale: float = param(1.0, unit="1", range=(0, 3), doc="Factor on the waves in swing.", shape=("segment",))
    sign: float = param(1.0, unit="1", range=(-1, 1), doc="Mirrors the joint's angle.", shape=("leg", "segment"))
    offset: float = param(0.0, unit="rad", range=(-7, 7), doc="Each leg's place in the cycle.", shape=("leg",))
    clock: float = param(9.0, unit="rad/s", range=(0, 60), doc="Phase rate at the speed asked for.")
    clock_gain: float = param(0.0, unit="rad/m", range=(-5, 5), doc="Change of phase rate per excess speed.")
    clock_min: float = param(0.0, unit="rad/s", range=(0, 60), doc="Slowest phase rate.")
    clock_max: float = param(60.0, unit="rad/s", range=(0, 60), doc="Fastest phase rate.")
    duty: float = param(0.5, unit="1", range=(0.1, 0.9), doc="Fraction of the cycle in stance, at the speed asked for.")
    duty_gain: float = param(0.0, unit="s/m", range=(-1, 1), doc="Change of duty per excess speed.")
    duty_min: float = param(0.1, unit="1", range=(0.1, 0.9), doc="Shortest stance.")
    duty_max: float = param(0.9, unit="1", range=(0.1, 0.9), doc="Longest stance.")


@dataclass
class State:
    """The clock."""

    phase: float = state(0.0, unit="rad", doc="Phase of the cycle, unwrapped.")


def update(p, s, x, c):
    """Write the joint targets for the current phase, then advance the clock."""
    excess = x.torso.vx - c.task.speed
    duty = max(p.duty_min, min(p.duty_max, p.duty + p.duty_gain * excess))
    legs, segments = c.limb.target.shape
    for leg in range(legs):
        turns = (s.phase + p.offset[leg]) / (2.0 * math.pi)
        turn = turns - math.floor(turns)
        stance = turn < duty
        phase = math.pi * (turn / duty if stance else 1.0 + (turn - duty) / (1.0 - duty))
        for segment in range(segments):
            wave = 0.0
            for k in range(HARMONICS):
                wave += p.amplitude[k, segment] * math.sin((k + 1) * phase + p.shift[k, segment])
            scale = p.stance_scale[segment] if stance else p.swing_scale[segment]
            angle = p.centre[segment] + c.task.amplitude * scale * wave + c.balance.offset[leg, segment]
            c.limb.target[leg, segment] = p.sign[leg, segment] * angle
    s.phase += x.period * max(p.clock_min, min(p.clock_max, p.clock + p.clock_gain * excess))
