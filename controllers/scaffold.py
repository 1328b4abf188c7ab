"""A new layer to start from: a commented module that already runs, and a test of it."""

from __future__ import annotations

import keyword
from pathlib import Path

from controllers.layer import LEVELS
from runtime.errors import SurefootError, nearest

WRITES = {"task": "task.amplitude", "balance": "balance.offset", "limb": "limb.target", "joint": "joint.control"}
"""What each level's starting point writes."""
USES = {
    "task": "c.task.amplitude = p.gain",
    "balance": "c.balance.offset[leg, segment] = -p.gain * x.torso.pitch",
    "limb": "c.limb.target[leg, segment] = p.gain * math.sin(s.phase) + c.balance.offset[leg, segment]",
    "joint": """error = c.joint.target[leg, segment] - x.joint.position[leg, segment]
            c.joint.control[leg, segment] = min(max(p.gain * error, -1.0), 1.0)""",
}

MODULE = '''"""{level_title}: one sentence of what this layer does and why it works.

Then where it is from (paper, equation). Levels run in the order task, balance, limb, joint; each reads what those
above it wrote into `c` and writes its own part: this one writes `{writes}`. `surefoot list` shows every name.
"""

{imports}from dataclasses import dataclass

from controllers.layer import param, state


@dataclass(frozen=True)
class Params:
    """Set in the stack's YAML; `shape=("leg", "segment")` makes one value per joint."""

    gain: float = param(0.1, unit="1", range=(0, 10), doc="What it does, in one sentence.")
    rate: float = param(6.0, unit="rad/s", range=(0, 60), doc="How fast the phase advances.")


@dataclass
class State:
    """Remembered from tick to tick, and handed over by name when a running stack is swapped."""

    phase: float = state(0.0, unit="rad", doc="Phase of the cycle, unwrapped.")


def update(p, s, x, c):
    """Called on every tick: p parameters, s state, x signals (read only), c commands.

    Numba compiles this: arithmetic, `math`, loops, conditionals and helper functions; nothing is allocated or raised.
    """
{body}    s.phase += x.period * p.rate  # x.period: seconds from this call to the next
'''

PYTHON_MODULE = '''"""Task, in plain Python: one sentence of what this layer does and why it works.

It is called before the planner and the compiled layers; inside rollouts what it last wrote is held. A run replays as
long as `update` depends on its arguments alone: what it remembers belongs into `State`.
"""

from dataclasses import dataclass

from controllers.layer import param, state

PYTHON = True


@dataclass(frozen=True)
class Params:
    """Set in the stack's YAML."""

    gain: float = param(0.1, unit="1", range=(0, 10), doc="What it does, in one sentence.")
    rate: float = param(6.0, unit="rad/s", range=(0, 60), doc="How fast the phase advances.")


@dataclass
class State:
    """Remembered from tick to tick, and handed over by name when a running stack is swapped."""

    phase: float = state(0.0, unit="rad", doc="Phase of the cycle, unwrapped.")


def update(p, s, x, c):
    """Called on every tick, or every `every` ticks: p parameters, s state, x signals (read only), c commands."""
    c.task.amplitude = p.gain
    s.phase += x.period * p.rate  # x.period: seconds from this call to the next
'''

TEST = '''"""{name}: that it loads, compiles and runs in a stack; replace this by what the layer promises."""

from pathlib import Path

import numpy as np

{imports}from controllers.stack import build_stack

FOLDER = Path(__file__).parent


def test_{name}_writes_finite_commands_and_advances_its_clock() -> None:
    layers = {{"{level}": {{"use": "{name}.py"}}{joint}}}
    document = {{"robot": "ant", "rate": "20 Hz", "layers": layers}}
    stack = build_stack("test_{name}", document, FOLDER / "stack.yaml")
    memory, signals = stack.initial.copy(), np.zeros(1, stack.robot.signals)
{prepare}    for tick in range(10):
        signals["tick"], signals["time"] = tick, tick * stack.period
{call}        stack.tick(stack.params.copy(), memory, signals, np.zeros(1, stack.robot.residual))
        assert np.all(np.isfinite(memory["commands"]{field}))
    np.testing.assert_allclose(memory["{level}"]["phase"], 10 * stack.period * 6.0)
'''


def new_layer(name: str, level: str, folder: Path, *, python: bool = False) -> list[Path]:
    """Write `NAME.py` and `test_NAME.py` into a folder; neither may exist.

    Args:
        name: Name of the layer, a Python name.
        level: One of the four levels.
        folder: Made if it does not exist.
        python: Whether it is to be plain Python, at task level.

    Returns:
        The two files.

    Raises:
        SurefootError: the level or the name is none, a file is in the way, or the folder cannot be written.
    """
    if level not in LEVELS:
        raise SurefootError(f"--level {level}: no such level; {nearest(level, LEVELS)}")
    if python and level != "task":
        raise SurefootError(f"--python: plain Python runs at task level only, not at {level}; --level task")
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii() or name != name.lower():
        raise SurefootError(
            f"{name!r} cannot name a layer: lower-case letters, digits and underscores, such as my_gait"
        )
    files = {
        folder / f"{name}.py": PYTHON_MODULE if python else _module(level),
        folder / f"test_{name}.py": _test(name, level, python),
    }
    for path in files:
        if path.exists():
            raise SurefootError(f"{path}: exists already; give the layer another name, or remove the file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_text(content)
    except OSError as error:
        raise SurefootError(f"{folder}: cannot be written: {error.strerror}") from None
    return list(files)


def _module(level: str) -> str:
    body = f"    {USES[level]}\n"
    if level != "task":
        body = f"""    legs, segments = c.{WRITES[level]}.shape
    for leg in range(legs):
        for segment in range(segments):
            {USES[level]}
"""
    imports = "import math\n" if "math." in body else ""
    return MODULE.format(level_title=level.capitalize(), writes=WRITES[level], imports=imports, body=body)


def _test(name: str, level: str, python: bool) -> str:
    field = "".join(f'["{part}"]' for part in WRITES[level].split("."))
    joint = "" if level == "joint" else ', "joint": {"use": "pd"}'
    imports = "from controllers.python_layers import PythonLayers\n" if python else ""
    prepare = "    python = PythonLayers(stack, memory)\n" if python else ""
    call = "        python.update(signals)\n" if python else ""
    return TEST.format(name=name, level=level, field=field, joint=joint, imports=imports, prepare=prepare, call=call)
