"""Stacks: rates and order of the layers, and everything that is refused before anything moves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from controllers.stack import Stack, build_stack, load_stack
from runtime import config
from runtime.errors import SurefootError
from tests.controllers.kit import stack

LAYER = '''"""A layer for a test."""
import math
from dataclasses import dataclass

from controllers.layer import param, state


@dataclass(frozen=True)
class Params:
    gain: float = param(1.0, unit="1", range=(0, 10), doc="A gain.")


@dataclass
class State:
    count: float = state(0.0, unit="1", doc="Calls so far.")


def helper(x):
    HELPER


def update(p, s, x, c):
    """Count."""
    s.count += 1.0
    BODY
'''
PLAIN = {"HELPER": "return x.time", "BODY": "c.task.speed = x.period"}


def write(folder: Path, name: str = "mine", replacing: str = "", by: str = "", **parts: str) -> Path:
    source = LAYER
    for mark, code in {**PLAIN, **parts}.items():
        source = source.replace(mark, code)
    assert replacing in source
    path = folder / f"{name}.py"
    path.write_text(source.replace(replacing, by) if replacing else source)
    return path


def build(folder: Path, rate: str = "20 Hz", **layers: Any) -> Stack:
    document = {"robot": "half_cheetah", "rate": rate, "layers": {**layers, "joint": {"use": "pd"}}}
    return build_stack("mine", document, folder / "mine.yaml")


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(SurefootError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_layers_run_at_their_own_rates_and_hold_in_between(tmp_path: Path) -> None:
    write(tmp_path, "every_tick")
    write(tmp_path, "every_third", BODY="c.task.bias = s.count; c.task.heading = x.period")
    layers = {"task": {"use": "every_tick.py"}, "task_slow": {"use": "every_third.py", "every": 3}}
    built = build(tmp_path, "100 Hz", **layers)
    memory, signals = built.initial.copy(), np.zeros(1, built.robot.signals)
    counts = []
    for tick in range(7):
        signals["tick"] = tick
        built.tick(built.params.copy(), memory, signals, np.zeros(1, built.robot.residual))
        task = memory["commands"]["task"][0]
        counts.append((memory["task"]["count"][0], task["bias"]))
    assert counts == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 3)]
    assert (task["speed"], task["heading"]) == (0.01, 0.03)


def test_a_slow_layer_updates_on_the_first_tick_whatever_its_number(tmp_path: Path) -> None:
    """With a tick of latency the first answer is to tick 1; until the next multiple the robot would follow zeros."""
    write(tmp_path, BODY="c.task.bias = s.count")
    built = build(tmp_path, task={"use": "mine.py", "every": 3})
    memory, signals, biases = built.initial.copy(), np.zeros(1, built.robot.signals), []
    for tick in range(1, 8):
        signals["tick"] = tick
        built.tick(built.params.copy(), memory, signals, np.zeros(1, built.robot.residual))
        biases.append(float(memory["commands"]["task"]["bias"][0]))
    assert biases == [1, 1, 2, 2, 2, 3, 3]


def test_the_same_stack_is_made_again_from_its_document(tmp_path: Path) -> None:
    first = stack("ant-reference")
    (tmp_path / "ant-reference.yaml").write_text(yaml.safe_dump(first.document, sort_keys=False))
    again = load_stack(str(tmp_path / "ant-reference.yaml"))
    assert again.package == first.package
    assert again.params.tobytes() == first.params.tobytes()


def test_parameters_do_not_recompile_but_sources_and_rates_do(tmp_path: Path) -> None:
    write(tmp_path)
    plain = build(tmp_path, task={"use": "mine.py"}).package
    assert build(tmp_path, task={"use": "mine.py", "gain": 2}).package == plain
    assert build(tmp_path, task={"use": "mine.py", "every": 2}).package != plain
    write(tmp_path, BODY="c.task.speed = 2.0 * x.period")
    assert build(tmp_path, task={"use": "mine.py"}).package != plain


def test_every_shipped_stack_loads() -> None:
    for name in config.available("stacks"):
        assert load_stack(name).name == name


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("robot=aunt", "unknown robot 'aunt'; did you mean 'ant'? valid: ant, half_cheetah"),
        ("robot=5", "ant-rhythm.yaml: robot: expected a word, found 5"),
        (
            "rate=30 Hz",
            "ant-rhythm.yaml: rate: 30 Hz is no whole number of physics steps of 0.01 s; nearest: 33.3333 Hz",
        ),
        ("rate=400 Hz", "rate: 400 Hz is no whole number of physics steps of 0.01 s; nearest: 100 Hz"),
        ("rate=0 Hz", "ant-rhythm.yaml: rate: 0 is outside"),
        ("rate=20 N", "ant-rhythm.yaml: rate: "),
        ("timestep=.nan", "ant-rhythm.yaml: timestep: expected a finite number [s], found nan"),
        ("colour=red", "ant-rhythm.yaml: unknown key 'colour'; "),
        ("layers=[]", "ant-rhythm.yaml: layers: expected a mapping"),
        ("layers.limp={use: harmonic_gait}", "layers: slot 'limp' belongs to no level; did you mean 'limb'?"),
        (
            "layers.limb_a-b={use: harmonic_gait}",
            "layers: 'limb_a-b' cannot name a slot: letters, digits and underscores",
        ),
        ("layers.limb.use=harmonic", "unknown limb layer 'harmonic'; did you mean 'harmonic_gait'?"),
        ("layers.limb.use=attitude", "unknown limb layer 'attitude'; valid: harmonic_gait, two_rate_gait"),
        ("layers.limb.use=mine.py", "mine.py: no such layer file"),
        ("layers.limb=5", "layers.limb: expected a mapping"),
        ("layers.limb={}", "layers.limb: key 'use' is missing"),
        ("layers.limb.clok=9", "layers.limb: unknown key 'clok'; did you mean 'clock'?"),
        ("layers.limb.clock=-1", "layers.limb.clock: -1 is outside [0, 60] rad/s"),
        ("layers.limb.clock=9 Nm", "layers.limb.clock: "),
        ("layers.limb.clock=.nan", "layers.limb.clock: expected a finite number [rad/s], found nan"),
        ("layers.limb.clock=fast", "layers.limb.clock: "),
        ("layers.limb.clock=null", "layers.limb.clock: expected a finite number [rad/s], found None"),
        ("layers.limb.offset=[0, 1, 2]", "layers.limb.offset: expected 4 numbers, found [0, 1, 2]"),
        ("layers.limb.sign=[[1, 1], [1, 1], [1, 1], [1, 2]]", "layers.limb.sign[3][1]: 2 is outside [-1, 1]"),
        ("layers.limb.centre=[0, .inf]", "layers.limb.centre[1]: expected a finite number [rad], found inf"),
        ("layers.limb.every=0", "layers.limb.every: expected a whole number in [1, 100000], found 0"),
        ("layers.joint.every=2", "layers.joint.every: the joint level updates on every tick: 1"),
        ("layers={limb: {use: harmonic_gait}}", "layers: a stack needs a joint layer"),
    ],
)
def test_a_wrong_stack_is_refused(assignment: str, message: str) -> None:
    assert message in refusal(lambda: load_stack("ant-rhythm", (assignment,)))


@pytest.mark.parametrize(
    ("replacing", "by", "message"),
    [
        ('"""A layer for a test."""', "", "mine.py: a layer begins with a docstring"),
        ("def update(p, s, x, c)", "def update(p, x)", "mine.py: a layer defines update(p, s, x, c)"),
        ("class Params", "class Parameters", "mine.py: a layer defines a dataclass Params"),
        ("@dataclass\n", "", "mine.py: a layer defines a dataclass State"),
        ('param(1.0, unit="1", range=(0, 10), doc="A gain.")', "1.0", "mine.py: Params.gain is declared with param("),
        ("param(1.0", "param(11.0", "mine.py: Params.gain: 11 is outside [0, 10]"),
        ("param(1.0", "param((1.0, 2.0)", "mine.py: Params.gain: expected"),
        ('doc="A gain."', 'doc="A gain.", shape=("arm",)', "mine.py: Params.gain: unknown axis 'arm'; leg, segment or"),
        ("gain: float", "every: float", "mine.py: Params.every: 'every' and 'use' are the stack's own keys"),
        ("state(0.0", "state(math.nan", "mine.py: State.count: its default must be finite"),
        ("def helper(x):", "def helper(x:", "mine.py:18: not valid Python: "),
        ("import math", "import mathh", "mine.py: cannot be loaded: ModuleNotFoundError: No module named 'mathh'"),
    ],
)
def test_a_file_that_is_no_layer_is_refused(tmp_path: Path, replacing: str, by: str, message: str) -> None:
    write(tmp_path, replacing=replacing, by=by)
    assert message in refusal(lambda: build(tmp_path, task={"use": "mine.py"}))


@pytest.mark.parametrize(
    ("line", "parts", "message"),
    [
        (25, {"BODY": "c.task.sped = 1.0"}, "no field 'sped'; did you mean 'speed'? valid: amplitude, bias, heading"),
        (25, {"BODY": "c.task.speed = p.gian"}, "no field 'gian'; did you mean 'gain'? valid: gain"),
        (
            19,
            {"HELPER": "return x.torso.tlt", "BODY": "c.task.speed = helper(x)"},
            "no field 'tlt'; did you mean 'tilt'?",
        ),
        (25, {"BODY": "c.task.speed = speed"}, "NameError: name 'speed' is not defined"),
        (25, {"BODY": "c.task.speed = math.sine(1.0)"}, "module 'math' has no attribute 'sine'"),
        (25, {"BODY": "c.task.speed = 'a' + p.gain"}, "No implementation of function"),
        (25, {"BODY": "c.limb.target[0, 0, 0] = 1.0"}, "setitem(nestedarray(float64, (2, 3))"),
        (26, {"BODY": "with open('x'):\n        pass"[4:] if False else "y = 1.0\n    import os"}, "IMPORT_NAME"),
    ],
)
def test_a_layer_that_does_not_compile_names_its_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: int, parts: dict[str, str], message: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path, **parts)
    built = build(tmp_path, task={"use": "mine.py"})
    found = refusal(lambda: built.compiled)
    assert found.startswith(f"{path}:{line}: ")
    assert message in found


def test_a_slot_stands_for_its_place_among_the_layers() -> None:
    long, short = (load_stack("ant-rhythm", (f"{key}=9",)) for key in ("layers.limb.clock", "limb.clock"))
    assert short.params.tobytes() == long.params.tobytes()
    assert short.params["limb"]["clock"] != load_stack("ant-rhythm").params["limb"]["clock"]
    with pytest.raises(SurefootError, match=r"'clok'.*did you mean 'clock'"):
        load_stack("ant-rhythm", ("limb.clok=9",))
