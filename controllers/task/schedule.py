"""Task: an episode in stages, each with its own speed, heading, amplitude and bias.

Source: the staged amplitudes of J. Weng, "Learning Beyond Gradients", 2026 (HalfCheetah's final policy).
"""

from dataclasses import dataclass

from controllers.layer import param, state

STAGES = 4


@dataclass(frozen=True)
class Params:
    """The stages in order; a stage that starts later than the episode ends is never reached."""

    start: float = param((0.0, 1e6, 1e6, 1e6), unit="s", range=(0, 1e6), doc="When each stage begins.", shape=(STAGES,))
    speed: float = param(0.0, unit="m/s", range=(-20, 20), doc="Speed asked for in each stage.", shape=(STAGES,))
    heading: float = param(0.0, unit="rad", range=(-3.2, 3.2), doc="Heading asked for in each stage.", shape=(STAGES,))
    amplitude: float = param(1.0, unit="1", range=(0, 3), doc="Factor on the gait's amplitude.", shape=(STAGES,))
    bias: float = param(0.0, unit="rad", range=(-1, 1), doc="Shift of the gait's centre.", shape=(STAGES,))


@dataclass
class State:
    """Which stage is running."""

    stage: float = state(0.0, unit="1", doc="Index of the stage.")


def update(p, s, x, c):
    """Write the task's command for the stage that the clock has reached."""
    stage = 0
    for i in range(1, STAGES):
        if x.time >= p.start[i]:
            stage = i
    s.stage = stage
    c.task.speed = p.speed[stage]
    c.task.heading = p.heading[stage]
    c.task.amplitude = p.amplitude[stage]
    c.task.bias = p.bias[stage]
