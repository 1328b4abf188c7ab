"""The pipeline of every tick: validity, monitor, arbiter, limits, post-check. Native, without the GIL or allocation.

    guest's command -> rules (monitor) -> most severe action (arbiter) -> block, clamp, slew -> post-check -> plant

Called identically by the guard and in lockstep. What the caller fills in stands in `tape.Inputs`; the verdict is left
in `Memory.core` and `Memory.rules`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.compiled import compiled
from safety import fallbacks
from safety.evaluator import FALSE, TRUE, load_signals, run_tape
from safety.limits import limit_command
from safety.model import CUT, DAMP, DERATE, HOLD, NONE
from safety.tape import CUTTING, DAMPING, GUEST, HOLDING, REPEAT, SHAPED, YIELDED

MODE_CHANGE, OPERATOR, NEVER = 1, 2, 3
"""Values of `clears` other than auto."""


@compiled
def filter_command(tape: Any, memory: Any, inputs: Any, control: Any) -> Any:
    """Pass one command through rules and limits, in place.

    Args:
        tape: `compiler.compile_rules(...)`.
        memory: `tape.new_memory(tape)`; `tape.reset` at an episode's start.
        inputs: Filled in by the guard for this tick.
        control: The guest's command (nu,) in normalised control, flattened in the order of the actuators; whatever it
            holds where `facts.answered` is 0 is ignored. On return the command to be sent.

    Returns:
        The action taken, an index into `model.ACTIONS`.
    """
    core, config, facts = memory.core[0], tape.config[0], inputs.facts[0]
    _accept(tape, memory, inputs, control)
    load_signals(tape.loads, config.signals, memory.source, memory.ages, memory.values)
    run_tape(
        tape.code, tape.table, config.period, core.tick, memory.ages, memory.values, memory.truths, memory.margins,
        memory.counters, memory.ring,
    )  # fmt: skip
    if facts.rearm != 0:
        core.cut = 0
    action = _judge(tape, memory, facts)
    if config.arming >= 0 and core.armed == 0:
        core.arming = core.arming + 1 if memory.truths[config.arming] == TRUE else 0
        core.armed = core.arming >= config.arming_ticks
        if core.armed == 0:
            action = max(action, HOLD)
    if core.missed > config.repeat or core.never_answered != 0 or facts.stop_requested != 0:
        action = max(action, HOLD)
    if core.cut != 0:
        action = CUT
    core.cut = action == CUT
    core.action = action
    core.interventions += action >= DERATE

    position = memory.values[config.position : config.position + control.size]
    velocity = memory.values[config.velocity : config.velocity + control.size]
    _command(action, config, memory, position, velocity, control)
    core.flags = limit_command(tape.limits, position, memory.sent, control)
    if not _post_check(tape.limits, control):
        core.checked += 1
        core.origin = DAMPING
        fallbacks.damp(config.damp_kd, velocity, control)
        limit_command(tape.limits, position, memory.sent, control)
    core.shaped += (core.flags & SHAPED) != 0
    core.yields += (core.flags & YIELDED) != 0
    _copy(control, memory.sent)
    core.mode = facts.mode
    core.tick += 1
    return action


@compiled
def _accept(tape: Any, memory: Any, inputs: Any, control: Any) -> None:
    """Take the guest's command if it is one, count it as missed otherwise, and lay out the source array."""
    core, facts, source = memory.core[0], inputs.facts[0], memory.source
    valid = facts.answered != 0
    for j in range(control.size):
        valid = valid and math.isfinite(control[j])
    core.missed = 0 if valid else core.missed + 1
    if valid:
        core.never_answered = 0
        _copy(control, memory.guest)
    n = tape.config[0].signals
    _copy(inputs.signals, source)
    _copy(inputs.ages, memory.ages)
    source[n] = facts.planner_age
    source[n + 1] = core.missed
    source[n + 2] = facts.lateness
    source[n + 3] = facts.stop_requested
    base, nu = n + 4, control.size
    for j in range(nu):
        # A missing answer leaves the last command in force; one that is no number is unknown to the rules.
        asked = control[j] if facts.answered != 0 else memory.guest[j]
        source[base + j] = asked
        source[base + nu + j] = asked * tape.limits[j].gear
        source[base + 2 * nu + j] = memory.sent[j]
        source[base + 3 * nu + j] = memory.sent[j] * tape.limits[j].gear


@compiled
def _judge(tape: Any, memory: Any, facts: Any) -> Any:
    """Step every rule's state and return the most severe action; the deciding rule and factor go to the core."""
    core = memory.core[0]
    changed = core.mode >= 0 and core.mode != facts.mode
    worst, decider, factor, ends = NONE, -1, 1.0, 0
    for i in range(tape.rules.size):
        rule, state = tape.rules[i], memory.rules[i]
        verdict = memory.truths[rule.when]
        state.margin = -memory.margins[rule.when]
        if (rule.modes >> facts.mode) & 1 == 0:
            verdict = FALSE
        state.verdict = verdict
        released = verdict == FALSE and (rule.until < 0 or memory.truths[rule.until] == TRUE)
        _step_rule(rule, state, verdict, released, changed, facts.rearm != 0)
        state.action = NONE
        if state.tripped != 0:
            at, left = rule.first, state.elapsed
            while at < rule.first + rule.steps - 1 and left > tape.steps[at].ticks:
                left -= tape.steps[at].ticks
                at += 1
            state.action, state.step = tape.steps[at].action, at - rule.first
            if state.action == DERATE:
                factor = min(factor, tape.steps[at].factor)
            if state.action > worst:
                worst, decider = state.action, i
            ends |= rule.clears >= OPERATOR
    core.rule, core.factor, core.ends = decider, factor, ends
    return worst


@compiled
def _step_rule(rule: Any, state: Any, verdict: int, released: bool, mode_changed: bool, rearmed: bool) -> None:
    """idle -> pending -> tripped -> releasing -> idle; unknown trips and never releases."""
    if state.tripped == 0:
        alarm = verdict != FALSE
        state.held = state.held + 1 if alarm else 0
        if rule.required == rule.window:
            trip = state.held >= rule.required
        else:
            state.recent = (state.recent << np.uint64(1)) | np.uint64(alarm)
            count, bits = 0, state.recent & ((np.uint64(1) << np.uint64(rule.window)) - np.uint64(1))
            while bits != 0:
                count += 1
                bits &= bits - np.uint64(1)
            trip = count >= rule.required
        if trip:
            state.tripped, state.releasing, state.elapsed = 1, 0, 1
            state.trips += 1
        return
    state.releasing = min(state.releasing + 1, 1 << 30) if released else 0
    if not released:
        state.elapsed = min(state.elapsed + 1, 1 << 30)
    allowed = rule.clears == 0 or (rule.clears == MODE_CHANGE and mode_changed) or (rule.clears == OPERATOR and rearmed)
    if state.releasing >= rule.release and allowed:
        state.tripped, state.held, state.recent = 0, 0, np.uint64(0)


@compiled
def _command(action: int, config: Any, memory: Any, position: Any, velocity: Any, control: Any) -> None:
    """Write the command of the chosen action."""
    core = memory.core[0]
    if action == HOLD and core.holding == 0:
        memory.posture[:] = np.nan
    core.holding = action == HOLD
    if action == CUT:
        core.origin = CUTTING
        control[:] = 0.0
    elif action == DAMP:
        core.origin = DAMPING
        fallbacks.damp(config.damp_kd, velocity, control)
    elif action == HOLD:
        core.origin = HOLDING
        fallbacks.hold(config.hold_kp, config.hold_kd, memory.posture, position, velocity, control)
    else:
        core.origin = GUEST if core.missed == 0 else REPEAT
        _copy(memory.guest, control)
        if action == DERATE:
            for j in range(control.size):
                control[j] = control[j] * core.factor


@compiled
def _post_check(limits: Any, control: Any) -> bool:
    """The last word: finite, and inside the actuator's range."""
    for j in range(control.size):
        if not limits[j].low <= control[j] <= limits[j].high or not -1.0 <= control[j] <= 1.0:
            return False
    return True


@compiled
def _copy(origin: Any, target: Any) -> None:
    """Copies element by element: a slice assignment allocates where it cannot exclude an overlap."""
    for i in range(origin.size):
        target[i] = origin[i]
