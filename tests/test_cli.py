"""The command line: what a person or a script gets for good and for bad input."""

import json
import sys
from pathlib import Path

import pytest

from runtime import cli
from runtime.episode import run_episode
from runtime.records import load_robot
from runtime.tapefile import TapeWriter, read_tape

RHYTHM = ("run", "half_cheetah-rhythm", "--steps", "20")


def surefoot(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["surefoot", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "antt"), "unknown stack 'antt'; did you mean 'ant'?"),
        (("run", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("run", "ant", "--planner", "treee"), "unknown planner 'treee'; did you mean 'tree'?"),
        (("run", "ant", "--plant", "natve"), "unknown plant 'natve'; did you mean 'native'?"),
        (("run", "ant", "--latency", "two"), "--latency: unknown mode 'two'"),
        (("run", "ant", "--budget", "45ms"), "lockstep counts candidates"),
        (("run", "ant", "--budget", "0"), "at least 1"),
        (("run", "ant", "--budget", "3kg"), "is in kg, expected a unit like 's'"),
        (("run", "ant", "--threads", "0"), "--threads 0: must be at least 1"),
        (("run", "ant", "--episodes", "0"), "--episodes 0: must be at least 1"),
        (("run", "ant", "--set", "layers.limb.clok=9"), "unknown key 'clok'; did you mean 'clock'?"),
        (("run", "ant", "--set", "layers.limb.clock=900"), "900 is outside [0, 60] rad/s"),
        (("run", "ant", "--set", "layers.limb.clock=.nan"), "expected a finite number"),
        (("run", "ant", "--set", "layers.limb.clock='9 kg'"), "is in kg"),
        (("run", "ant", "--set", "robot=any"), "unknown robot 'any'; did you mean 'ant'?"),
        (("run", "ant", "--set", "rate='17 Hz'"), "no whole number of physics steps"),
        (("run", "ant", "--plant", "gymnasium", "--realtime"), "cannot be paced"),
        (("run", "ant-rhythm", "--planner", "tree"), "needs a section 'cost'"),
        (("run", "ant", "--out", "/proc/nowhere"), "/proc/nowhere: cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert surefoot(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_planner_setting_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert surefoot(monkeypatch, "run", "ant", "--set", "planner.horizn=3", "--out", str(tmp_path / "new")) == 2
    assert "unknown key 'horizn'; did you mean 'horizon'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_with_the_promised_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert surefoot(monkeypatch, *RHYTHM, "--episodes", "2", "--seed", "7", "--out", str(tmp_path), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    promised = (
        "robot stack plant planner budget threads latency realtime seeds returns mean std min max falls steps "
        "decision_ms guard_missed guest_missed sim_steps_per_tick versions"
    )
    assert set(promised.split()) <= set(document)
    assert document["seeds"] == [7, 8]
    assert document["steps"] == 40
    assert set(document["decision_ms"]) == {"p50", "p99", "p99.9", "max"}
    assert json.loads((tmp_path / "results.json").read_text()) == document


def test_the_same_run_twice_leaves_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert surefoot(monkeypatch, *RHYTHM, "--episodes", "2", "--out", str(tmp_path / name)) == 0
    tapes = [(tmp_path / name / "tape-000.mcap").read_bytes() for name in ("a", "b")]
    assert tapes[0] == tapes[1]


def test_a_folder_that_holds_a_run_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert surefoot(monkeypatch, *RHYTHM, "--out", str(tmp_path)) == 0
    before = (tmp_path / "results.json").read_bytes()
    assert surefoot(monkeypatch, *RHYTHM, "--out", str(tmp_path)) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_bytes() == before


def test_ctrl_c_ends_the_episode_and_keeps_the_folder_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:

    def interrupted(*arguments: object, **options: object) -> object:
        run_episode(*arguments, **{**options, "steps": 5})  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime.run.run_episode", interrupted)
    assert surefoot(monkeypatch, *RHYTHM, "--out", str(tmp_path)) == 130
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["interrupted"], results["steps"]) == (True, 5)
    tape = read_tape(load_robot("half_cheetah"), tmp_path)
    assert (len(tape.rows), tape.problem) == (5, None)


def test_a_full_disk_ends_the_tape_not_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    written = []

    def rows(self: TapeWriter, first: int, rows: object) -> None:
        if first == 10:
            raise OSError(28, "No space left on device")
        written.append(first)

    monkeypatch.setattr(TapeWriter, "rows", rows)
    assert surefoot(monkeypatch, *RHYTHM, "--out", str(tmp_path)) == 0
    assert written == list(range(10))
    assert "No space left on device" in capsys.readouterr().err
    assert json.loads((tmp_path / "results.json").read_text())["steps"] == 20


def test_list_shows_layers_with_units_and_ranges(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert surefoot(monkeypatch, "list", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    clock = next(p for p in document["layers"]["limb"]["harmonic_gait"]["params"] if p["name"] == "clock")
    assert (clock["unit"], clock["range"]) == ("rad/s", [0, 60])
    assert surefoot(monkeypatch, "list") == 0
    assert "half_cheetah-reference" in capsys.readouterr().out
