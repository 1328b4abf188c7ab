"""A commented starting rule file, from the robot's model and, where there are some, its nominal runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.records import Robot
from safety.model import Fallbacks, Layout, Limits, RuleSet
from safety.trace import Trace

FindRuns = Callable[[list[Path], RuleSet], list[Trace]]
HEADROOM = 1.5
"""Thresholds stand this far beyond what nominal runs reached: a starting point, to be argued rule by rule."""

TEXT = """\
# Safety rules of {robot}: a start, written by 'surefoot rules new'. Read every line; the thresholds are {origin}.
# How to go on: safety/AUTHORING.md. Check with 'surefoot rules check', then write tests beside this file.
version: 1
robot: {robot}
semantics: gymnasium              # the limits are the actuators' ranges; multi-rate adds block and slew
rates: [{rate:g} Hz]                   # every duration below has to be a whole number of these ticks

signals:                          # all that a rule may read; outside of its range a value counts as unknown
  q:    {{from: joint.position, over: hinges, unit: rad, range: [{q_low:.2f}, {q_high:.2f}], stale: {tick}}}
  qd:   {{from: joint.velocity, over: hinges, unit: rad/s, range: [-{qd_range:g}, {qd_range:g}], stale: {tick}}}
  tilt: {{from: torso.tilt, unit: rad, range: [0, 3.15], stale: {tick}}}
  u:    {{from: joint.control, over: hinges, unit: 1, range: [-1, 1]}}
  plan_age: {{from: planner.age, unit: s, range: [0, 1]}}

fallbacks:                        # what happens when a rule or a missing answer takes the command away
  repeat: 2 ticks
  hold: {{kp: 1 1/rad, kd: 0.05 s/rad}}
  damp: {{kd: 0.05 s/rad}}

limits:
  - {{id: L-01, why: The actuators take no more., clamp: "u in [-1, 1]"}}

rules:
  - id: R-01
    why: Past this tilt the robot is falling.     # say how you know: a test, a recording, a data sheet
    when: tilt > {tilt:.2f} rad
    for: {two_ticks}
    until: tilt < {tilt_back:.2f} rad
    release_after: {two_ticks}
    do: hold
  - id: R-02
    why: Joints never move this fast when all is well.
    when: "any j in hinges: abs(qd[j]) > {qd:.1f} rad/s"
    do: damp
  - id: R-03
    why: An angle that cannot be read cannot be controlled.
    when: "any j in hinges: unknown(q[j])"
    do: damp
  - id: R-04
    why: A stale plan is an open-loop plan.
    when: plan_age > {two_ticks}
    do: [derate 0.5 for {two_ticks}, hold]
"""


def starter(robot: Robot, runs: list[Path], find_runs: FindRuns) -> str:
    """The text of the file.

    Args:
        robot: Whose ranges to use.
        runs: Nominal runs; without any the thresholds are guesses, and the file says so.
        find_runs: Reads them.
    """
    layout = Layout(robot)
    period = robot.timestep * robot.frame_skip
    sources = layout.sources()
    fastest, steepest, origin = 15.0, 0.6, "guesses, since no nominal run was given"
    if runs:
        nothing = np.zeros(0)
        probe = RuleSet(robot.path, layout, "gymnasium", period, (1 / period,), {},
                        Limits(nothing, nothing, nothing, nothing, nothing), Fallbacks(), ())  # fmt: skip
        traces = find_runs(runs, probe)
        nu = len(layout.joints)
        speed = sources["joint.velocity"].offset
        fastest = max(float(np.nanmax(np.abs(t.source[:, speed : speed + nu]))) for t in traces)
        steepest = max(float(np.nanmax(t.source[:, sources["torso.tilt"].offset])) for t in traces)
        origin = f"{HEADROOM:g} times what {sum(map(len, traces))} nominal ticks reached"
    low, high = robot.joint_range[..., 0].min(), robot.joint_range[..., 1].max()
    margin = 0.5 * (high - low)
    tilt = min(HEADROOM * steepest, 1.5)
    ms = period * 1e3
    return TEXT.format(
        robot=robot.name, origin=origin, rate=1 / period, q_low=low - margin, q_high=high + margin,
        qd_range=float(np.ceil(3 * fastest / 10) * 10), tick=f"{ms:g} ms", two_ticks=f"{2 * ms:g} ms", tilt=tilt,
        tilt_back=0.7 * tilt, qd=HEADROOM * fastest,
    )  # fmt: skip
