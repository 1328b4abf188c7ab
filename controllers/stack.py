"""Stacks: layers composed by a YAML file, checked, and compiled as one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numba import from_dtype, types

from controllers import layer as layers
from controllers.diagnose import explain
from controllers.generated import PACKAGE, fingerprint, load_generated
from controllers.layer import LEVELS, Module
from runtime import config, records
from runtime.errors import SurefootError, nearest
from runtime.records import COMMANDS, Robot, fill_defaults


@dataclass(frozen=True)
class Layer:
    """A layer in its slot."""

    slot: str
    """Its name in the stack: the level, or `level_something` for a further layer of that level."""
    module: Module
    every: int
    """It updates on the first tick and on multiples of this; its commands hold in between."""

    @property
    def level(self) -> str:
        """Which of the four levels it belongs to."""
        return self.slot.split("_")[0]


@dataclass(frozen=True)
class Stack:
    """Layers for one robot at one rate, with the records of their parameters and their memory."""

    name: str
    robot: Robot
    period: float
    """Control period [s]."""
    frame_skip: int
    """Physics steps per control tick."""
    layers: tuple[Layer, ...]
    """In the order in which they update."""
    params: np.ndarray
    """One record (1,): slot -> parameters."""
    initial: np.ndarray
    """One record (1,): the memory at the start of an episode: slot -> state, `commands`, and `ticks` answered."""
    document: dict[str, Any] = field(repr=False)
    """The resolved configuration, which makes the same stack again."""

    @property
    def memory(self) -> np.dtype[Any]:
        """The record of all that the stack remembers from tick to tick."""
        return self.initial.dtype

    @property
    def timestep(self) -> float:
        """Physics step [s]."""
        return self.period / self.frame_skip

    @property
    def _native(self) -> list[Layer]:
        """The layers that are compiled."""
        return [x for x in self.layers if x.module.python is None]

    @cached_property
    def source(self) -> str:
        """The generated module that composes the layers."""
        return _generate(self)

    @cached_property
    def package(self) -> str:
        """Name of the folder and Python package of its compiled code: the hash of everything it is made from."""
        return "surefoot_" + fingerprint(
            self.source, *(part for x in self._native for part in (x.slot, x.module.source)),
            *map(str, (self.params.dtype, self.memory, self.robot.signals, self.robot.residual)),
        )  # fmt: skip

    @cached_property
    def compiled(self) -> Any:
        """The generated module: `step` for compiled callers, `tick` for Python; loaded from the cache if it is there.

        Raises:
            SurefootError: a layer does not compile; the message names its file and line.
        """
        sources = {x.slot: x.module.source for x in self._native}
        module = load_generated(self.package, "stack", self.source, sources, {})
        records = (self.params.dtype, self.memory, self.robot.signals, self.robot.residual)
        try:
            module.tick.compile(tuple(types.Array(from_dtype(record), 1, "C") for record in records))
        except Exception:
            self._explain(module)
            raise
        return module

    def _explain(self, module: Any) -> None:
        """Find the layer that does not compile, if it is one, by compiling each alone."""
        for x in self._native:
            records = {"p": self.params.dtype[x.slot], "s": self.memory[x.slot], "x": self.robot.signals,
                       "c": self.robot.commands}  # fmt: skip
            try:
                getattr(module, x.slot).update.compile(tuple(map(from_dtype, records.values())))
            except Exception as error:
                raise explain(x.module, error, records, f"{self.package}/{x.slot}.py") from None

    @property
    def step(self) -> Any:
        """`step(params, memory, signals, residual)` over records, for compiled callers.

        The answer is `memory.commands.joint.control`.
        """
        return self.compiled.step

    @property
    def tick(self) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
        """The same over arrays of one record, for Python callers."""
        return self.compiled.tick  # type: ignore[no-any-return]


def load_stack(name: str, sets: tuple[str, ...] = ()) -> Stack:
    """Read a stack by name (`configs/stacks/NAME.yaml`) or by the path of its file.

    Args:
        name: Name or path.
        sets: Changes, each `key=value` with a dotted key, applied before anything is checked; `limb.clock=9` is short
            for `layers.limb.clock=9`.

    Raises:
        SurefootError: with what is wrong, where, and what would be right.
    """
    path = config.find("stacks", name)
    document = config.load(path)
    for assignment in sets:
        slot = assignment.partition("=")[0].partition(".")[0]
        layers = document.get("layers")
        short = slot not in document and isinstance(layers, dict) and slot in layers
        config.override(document, f"layers.{assignment}" if short else assignment)
    return build_stack(path.stem, document, path)


def build_stack(
    name: str, document: dict[str, Any], path: Path, modules: Mapping[str, Module] | None = None
) -> Stack:  # fmt: skip
    """Check a stack's configuration and lay out its records; nothing is compiled yet.

    Args:
        name: What the stack is called.
        document: Its configuration.
        path: Its file, which errors name; layers' own files are relative to it.
        modules: Slot -> layer to use instead of the file that the configuration names, which is not read.
    """
    doc = config.Section(document, str(path))
    robot = records.load_robot(doc.take("robot", config.text))
    rate = doc.take("rate", config.number(1e-3, 1e5, "Hz"))
    timestep = doc.take("timestep", config.number(1e-6, 1.0, "s"), robot.timestep)
    frame_skip = round(1.0 / (rate * timestep))
    if frame_skip < 1 or abs(1.0 / (rate * timestep) - frame_skip) > 1e-9:
        raise SurefootError(
            f"{path}: rate: {rate:g} Hz is no whole number of physics steps of {timestep:g} s; "
            f"nearest: {1.0 / (max(frame_skip, 1) * timestep):g} Hz"
        )
    found, sections = _layers(doc.section("layers"), path, modules or {})
    for key in ("planner", "cost", "rules", "about"):  # read by those whom they concern
        doc.take(key, lambda value, where: value, None)
    doc.finish()

    params_parts, state_parts = [], []
    for item in found:
        params_parts.append((item.slot, item.module.dtype(item.module.params, robot.axes)))
        state_parts.append((item.slot, item.module.dtype(item.module.state, robot.axes)))
    params = np.zeros(1, np.dtype(params_parts, align=True))
    initial = np.zeros(1, np.dtype([*state_parts, ("commands", robot.commands), ("ticks", np.int64)], align=True))
    for item, section in zip(found, sections, strict=True):
        layers.read_params(item.module, section, robot.axes, params[item.slot])
        layers.initial_state(item.module, initial[item.slot])
    fill_defaults(initial["commands"], COMMANDS)
    params.setflags(write=False)
    initial.setflags(write=False)
    return Stack(name, robot, frame_skip * timestep, frame_skip, found, params, initial, document)


def _layers(
    doc: config.Section, path: Path, modules: Mapping[str, Module]
) -> tuple[tuple[Layer, ...], list[config.Section]]:
    slots = sorted(map(str, doc.data), key=lambda s: LEVELS.index(s.split("_")[0]) if s.split("_")[0] in LEVELS else -1)
    found, sections = [], []
    for slot in slots:
        level = slot.split("_")[0]
        if level not in LEVELS:
            raise SurefootError(f"{doc.where}: slot {slot!r} belongs to no level; {nearest(level, LEVELS)}")
        if not slot.isidentifier():
            raise SurefootError(
                f"{doc.where}: {slot!r} cannot name a slot: letters, digits and underscores, such as {level}_2"
            )
        section = doc.section(slot)
        if slot in modules:
            section.take("use", config.text, None)
            module = modules[slot]
        else:
            module = layers.read_module(layers.find_layer(level, section.take("use", config.text), path.parent))
        if module.python is not None and level != "task":
            raise SurefootError(
                f"{doc.where}.{slot}: {module.path} is plain Python (PYTHON = True), which runs at task level only; "
                "write it in what Numba compiles, or use it as a task layer"
            )
        every = section.take("every", config.integer(1, 100000), 1)
        found.append(Layer(slot, module, every))
        sections.append(section)
    if not any(x.level == "joint" for x in found):
        raise SurefootError(f"{doc.where}: a stack needs a joint layer, which writes the control of every actuator")
    if any(x.level == "joint" and x.every != 1 for x in found):
        raise SurefootError(f"{doc.where}.joint.every: the joint level updates on every tick: 1")
    return tuple(found), sections


def _generate(stack: Stack) -> str:
    """The module that calls the layers in order and adds the planner's residual between them."""
    lines = [
        '"""Generated from a stack by controllers/stack.py: its layers as one compiled step."""',
        "from numba import njit",
        *(f"from {PACKAGE} import {x.slot}" for x in stack.layers if x.module.python is None),
        "",
        '@njit(error_model="numpy", cache=True)',
        "def step(p, m, x, r):",
        "    c = m.commands",
    ]
    for level in LEVELS:
        if level == "joint":
            lines += _over_joints("c.joint.target[i, j] = c.limb.target[i, j] + r.target[i, j]", stack)
        for item in (x for x in stack.layers if x.level == level and x.module.python is None):
            indent = "    "
            if item.every > 1:
                lines.append(f"    if x.tick % {item.every} == 0 or m.ticks == 0:")
                indent = "        "
            lines.append(f"{indent}x.period = {stack.period * item.every!r}")
            lines.append(f"{indent}{item.slot}.update(p.{item.slot}, m.{item.slot}, x, c)")
    # min outside max: the other order turns NaN into full torque and hides it from the guard.
    lines += _over_joints("c.joint.control[i, j] = min(max(c.joint.control[i, j] + r.control[i, j], -1.0), 1.0)", stack)
    lines += [
        "    m.ticks += 1",
        "",
        '@njit(error_model="numpy", cache=True, nogil=True)',
        "def tick(p, m, x, r):",
        "    step(p[0], m[0], x[0], r[0])",
        "",
    ]
    return "\n".join(lines)


def _over_joints(statement: str, stack: Stack) -> list[str]:
    legs, segments = stack.robot.shape
    return [f"    for i in range({legs}):", f"        for j in range({segments}):", f"            {statement}"]
