"""A whole run in real time: processes, a worker that stops in the middle, the tape, and its replay."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime import config
from runtime.crew import Crew
from runtime.errors import SurefootError
from runtime.records import load_robot
from runtime.replay import Report, replay_run
from runtime.run import Request, run
from runtime.supervisor import Setup, Supervisor
from runtime.tape import Mode
from runtime.tapefile import read_tape

STACK = "half_cheetah-rhythm"


def test_a_worker_that_stops_costs_ticks_of_fallback_and_the_run_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []
    look_after = Crew.attend

    def stop_once(crew: Crew) -> None:
        look_after(crew)
        member, state = crew.members[0], crew._guard.state
        if not stopped and state["ticks"] > 8 and member is not None:
            stopped.append(int(state["tick"]))
            os.kill(member.process.pid, signal.SIGSTOP)

    monkeypatch.setattr(Crew, "attend", stop_once)
    out = tmp_path / "run"
    summary = run(Request(stack=STACK, realtime=True, steps=40, seed=3, out=out))
    assert summary.episodes[0].steps == 40
    assert summary.guest_missed >= 2

    tape = read_tape(summary.stack.robot, out)
    names = [event["event"] for event in tape.events]
    assert {"worker_ready", "worker_killed", "guest_missed", "fallback", "recovered", "seat"} <= set(names)
    assert tape.problem is None
    assert tape.rows["seat"][-1] == 1

    report = replay_run(out)
    assert report.compared == 40 - summary.guest_missed
    assert report.filtered == 40
    assert report.differing == 0


@pytest.mark.parametrize("realtime", [False, True])
def test_what_the_rules_did_is_in_the_results(tmp_path: Path, realtime: bool) -> None:
    low = "height < 0.3 m or height > 1.5 m"
    text = config.find("rules", "half_cheetah").read_text()
    assert low in text
    (tmp_path / "strict.yaml").write_text(text.replace(low, "height > 0.1 m"))
    out, sets = tmp_path / "run", (f"rules={tmp_path / 'strict.yaml'}",)
    summary = run(Request(stack=STACK, sets=sets, realtime=realtime, steps=20, seed=3, out=out))
    held = int((read_tape(summary.stack.robot, out).rows["mode"] >= Mode.HOLD).sum())
    assert summary.document()["interventions"] == held >= 15
    report = replay_run(out)
    assert (report.filtered, report.differing, report.notes) == (20, 0, [])


def test_a_lockstep_run_replays_and_another_stack_is_compared(tmp_path: Path) -> None:
    for latency in ("none", "one_tick"):
        out = tmp_path / latency
        run(Request(stack=STACK, steps=20, episodes=2, seed=3, latency=latency, out=out))
        report = replay_run(out)
        assert (report.differing, report.problem) == (0, None)
        assert report.compared == (40 if latency == "none" else 38)
    other = replay_run(tmp_path / "none", "half_cheetah-reference")
    assert other.differing > 0
    assert other.largest > 0
    assert other.first is not None
    with pytest.raises(SurefootError, match="the run is of half_cheetah"):
        replay_run(tmp_path / "none", "ant-rhythm")


def test_a_change_of_one_bit_is_found_with_its_tick_and_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    run(Request(stack=STACK, steps=12, seed=3, out=out))
    from runtime import replay

    def report_with(change: Callable[[np.ndarray], None]) -> Report:
        def changed(*arguments: object) -> object:
            tape = read_tape(*arguments)  # type: ignore[arg-type]
            rows = tape.rows.copy()
            change(rows)
            return type(tape)(rows, tape.events, tape.problem)

        monkeypatch.setattr(replay, "read_tape", changed)
        return replay_run(out)

    def answered(rows: np.ndarray) -> None:
        rows["commands"]["limb"]["target"][7, 0, 0] *= 1 + 2**-52

    def sent(rows: np.ndarray) -> None:
        rows["sent"][5, 1, 2] *= 1 + 2**-52

    report = report_with(answered)
    assert report.first is not None
    assert (report.first["tick"], report.first["field"]) == (7, "limb.target")
    assert (report.differing, report.compared, report.filtered) == (1, 8, 12)
    report = report_with(sent)
    assert report.first is not None
    assert (report.first["tick"], report.first["layer"], report.first["field"]) == (5, "rules", "sent")
    assert (report.differing, report.compared, report.filtered) == (1, 0, 6)


def test_a_wait_longer_than_the_period_is_refused(tmp_path: Path) -> None:
    setup = Setup.__new__(Setup)
    object.__setattr__(setup, "wait", 1.2)
    with pytest.raises(SurefootError, match=r"a deadline of 1\.2 periods leaves no time"):
        Supervisor(setup)


def test_a_worker_that_cannot_start_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.worker import WorkerSpec

    monkeypatch.setattr(WorkerSpec, "command", lambda self, module: ["python3", "-c", "raise SystemExit('no luck')"])
    with pytest.raises(SurefootError, match="the worker did not start: no luck"):
        run(Request(stack=STACK, realtime=True, steps=5, out=tmp_path / "run"))


def test_an_episode_that_was_stopped_has_no_valid_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_after = Crew.attend

    def stop_once(crew: Crew) -> None:
        look_after(crew)
        if crew._guard.state["ticks"] > 8:
            crew._guard.state["stop"] = 1

    monkeypatch.setattr(Crew, "attend", stop_once)
    summary = run(Request(stack=STACK, realtime=True, episodes=3, seed=3, out=tmp_path / "run"))
    assert [e.stopped for e in summary.episodes] == [True]
    assert summary.document()["returns"] == []
    rows = read_tape(summary.stack.robot, tmp_path / "run").rows
    asked = rows[rows["facts"]["stop_requested"] != 0]
    assert (asked["mode"] >= Mode.HOLD).all()
    assert (asked["facts"]["answered"] == (asked["miss"] == 0)).all()
    assert replay_run(tmp_path / "run").differing == 0


def test_a_fault_of_the_supervisor_stops_the_robot_before_it_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(crew: Crew) -> None:
        if crew._guard.state["ticks"] > 8:
            raise RuntimeError("not foreseen")

    monkeypatch.setattr(Crew, "attend", fail)
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="not foreseen"):
        run(Request(stack=STACK, realtime=True, episodes=3, seed=3, out=out))
    rows = read_tape(load_robot("half_cheetah"), out).rows
    assert rows["facts"]["stop_requested"][-1] == 1
    assert rows["episode"][-1] == 0
    assert (rows["mode"][rows["facts"]["stop_requested"] != 0] >= Mode.HOLD).all()
