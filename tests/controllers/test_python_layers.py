"""A task layer in plain Python drives, plans, replays and swaps places like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from controllers.scaffold import new_layer
from controllers.stack import Stack, build_stack
from runtime import config
from runtime.errors import SurefootError
from runtime.guest import Guest
from runtime.mailbox import Mailbox, mail_layout
from runtime.replay import replay_run
from runtime.run import Request, run
from runtime.tapefile import read_tape
from runtime.worker import Service, StackHost, WorkerSpec

SOURCE = '''"""Task: a word a tick, which no compiler takes."""
from dataclasses import dataclass
from controllers.layer import param, state

PYTHON = True


@dataclass(frozen=True)
class Params:
    """How much."""

    steps: float = param(1.0, unit="1", range=(0, 10), doc="Amplitude per word.")


@dataclass
class State:
    """How often."""

    calls: float = state(0.0, unit="1", doc="Calls so far.")


def update(p, s, x, c):
    """Count with a dictionary."""
    words = {"low": 0.5, "high": 1.0}
    s.calls += 1
    c.task.amplitude = p.steps * words["high" if int(s.calls) % 2 else "low"]
'''


def document(every: int = 2, slot: str = "task") -> dict[str, Any]:
    found = config.load(config.find("stacks", "half_cheetah-rhythm"))
    found["rules"] = "none"
    found["layers"].pop("task", None)
    found["layers"][slot] = {"use": "words.py", "every": every, "steps": 0.8}
    return found


def made(folder: Path, source: str = SOURCE, **changes: Any) -> Stack:
    (folder / "words.py").write_text(source)
    return build_stack("words", document(**changes), folder / "words.yaml")


def seen(stack: Stack, tick: int) -> tuple[Any, ...]:
    signals = np.zeros(1, stack.robot.signals)
    signals["tick"] = tick
    return stack.robot.model.qpos0, np.zeros(stack.robot.model.nv), signals, np.zeros(stack.robot.shape)


def test_it_is_called_on_its_turns_and_its_command_is_held_in_between(tmp_path: Path) -> None:
    stack = made(tmp_path)
    guest = Guest(stack, None, None)
    amplitudes = []
    for tick in range(6):
        guest.answer(*seen(stack, tick))
        amplitudes.append(float(guest.commands["task"]["amplitude"]))
    assert amplitudes == [0.8, 0.8, 0.4, 0.4, 0.8, 0.8]
    assert guest.snapshot["memory"]["task"]["calls"] == 3


def test_its_state_travels_with_the_tick_through_a_worker(tmp_path: Path) -> None:
    stack = made(tmp_path, every=1)
    spec = WorkerSpec(stack={"name": "words", "document": stack.document, "path": str(tmp_path / "words.yaml")},
                      planner="none")  # fmt: skip
    layout = mail_layout(stack.robot)
    first, second = StackHost(spec), StackHost(spec)
    assert first.native_loop(Service(first, layout, Mailbox.create(layout))) is None
    request, answer = np.zeros(1, layout.request)[0], np.zeros(1, layout.answer)[0]
    request["base"] = -1
    first.respond(request, answer)
    assert answer["commands"]["task"]["amplitude"] == 0.8
    request["base"], request["state_size"], request["state"] = 0, answer["state_size"], answer["state"]
    second._seed = 0
    second.respond(request, answer)
    assert answer["commands"]["task"]["amplitude"] == 0.4


def test_a_run_has_it_on_the_tape_and_replays(tmp_path: Path) -> None:
    stack = made(tmp_path)
    (tmp_path / "words.yaml").write_text(yaml.safe_dump(stack.document))
    run(Request(stack=str(tmp_path / "words.yaml"), steps=12, seed=3, out=tmp_path / "run"))
    rows = read_tape(stack.robot, tmp_path / "run").rows
    assert list(rows["commands"]["task"]["amplitude"][:4]) == [0.8, 0.8, 0.4, 0.4]
    report = replay_run(tmp_path / "run")
    assert (report.compared, report.differing) == (12, 0)


def test_it_is_refused_below_the_task_level(tmp_path: Path) -> None:
    with pytest.raises(SurefootError, match=r"layers\.balance_words: .*words\.py is plain Python .* task level only"):
        made(tmp_path, slot="balance_words")


def test_what_it_raises_is_one_line_with_its_place(tmp_path: Path) -> None:
    stack = made(tmp_path, SOURCE.replace('words["high"', 'words["tall"'))
    with pytest.raises(SurefootError, match=r"words\.py:26: KeyError: 'tall'"):
        Guest(stack, None, None).answer(*seen(stack, 0))


def test_the_signals_are_its_own_copy(tmp_path: Path) -> None:
    stack = made(tmp_path, SOURCE.replace("    s.calls += 1\n", "    s.calls += 1\n    x.torso.pitch = 9.0\n"))
    guest = Guest(stack, None, None)
    guest.answer(*seen(stack, 0))
    assert guest.snapshot["signals"]["torso"]["pitch"] == 0


def test_a_new_one_passes_its_own_test(tmp_path: Path) -> None:
    module, test = new_layer("stroll", "task", tmp_path, python=True)
    names: dict[str, Any] = {"__file__": str(test)}
    exec(compile(test.read_text(), str(test), "exec"), names)
    names["test_stroll_writes_finite_commands_and_advances_its_clock"]()
    assert "PYTHON = True" in module.read_text()
    with pytest.raises(SurefootError, match="--python: plain Python runs at task level only, not at limb"):
        new_layer("march", "limb", tmp_path, python=True)


def test_patrol_turns_round_at_its_distance_and_again_at_home() -> None:
    document = config.load(config.find("stacks", "ant-rhythm"))
    document["rules"] = "none"
    document["layers"]["task"] = {"use": "patrol", "distance": 5}
    stack = build_stack("patrol", document, Path("patrol.yaml"))
    guest = Guest(stack, None, None)
    headings = []
    for tick, x in enumerate((0.1, 4.9, 5.1, 3.0, -0.1, 2.0)):
        arguments = seen(stack, tick)
        arguments[2]["torso"]["x"] = x
        guest.answer(*arguments)
        headings.append(float(guest.commands["task"]["heading"]))
    np.testing.assert_allclose(headings, [0, 0, np.pi, np.pi, 0, 0])
