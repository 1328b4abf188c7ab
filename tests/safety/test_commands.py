"""The commands, as a script and as a person meet them."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from runtime.errors import SurefootError
from runtime.tape import row_dtype
from safety.commands import app
from safety.model import MODES
from safety.replay import replay, rows_to_traces
from safety.rulefile import load_rules
from safety.ruletests import load_tests
from safety.tape import nominal_facts

WRONG = str(Path(__file__).parent / "wrong" / "unit_mismatch.yaml")


def test_check_prints_json() -> None:
    good, bad = (CliRunner().invoke(app, ["check", f, "--json"]) for f in ("ant", WRONG))
    assert json.loads(good.stdout) == {"ok": True, "errors": []}
    document = json.loads(bad.stdout)
    assert bad.exit_code == 1 and document["ok"] is False
    assert document["errors"][0].keys() == {"line", "column", "code", "message", "remedy"}


def test_test_says_how_many_passed() -> None:
    result = CliRunner().invoke(app, ["test", "half_cheetah"])
    assert result.exit_code == 0 and "tests passed" in result.stdout


def test_explain_reads_a_rule_aloud() -> None:
    result = CliRunner().invoke(app, ["explain", "R-03", "ant"])
    assert "> 0.75 rad, or when that is unknown: hold for 2000 ms, then damp" in result.stdout


def test_explain_says_when_a_rule_last_tripped(tmp_path: Path) -> None:
    from runtime.records import load_robot
    from runtime.tape import row_dtype
    from runtime.tapefile import TapeWriter

    robot = load_robot("half_cheetah")
    rows = np.zeros(40, row_dtype(robot))
    rows["tick"] = rows["answered"] = np.arange(40)
    rows["start"][0] = True
    rows["signals"]["time"], rows["signals"]["period"], rows["facts"] = 0.05 * np.arange(40), 0.05, nominal_facts()
    rows["signals"]["torso"]["height"], rows["signals"]["torso"]["tilt"] = 0.6, 0.1
    rows["signals"]["torso"]["tilt"][20:22] = 1.3
    (tmp_path / "fallen").mkdir()
    tape = TapeWriter(robot, tmp_path / "fallen" / "tape-000.mcap")
    tape.rows(0, rows)
    tape.close()
    arguments = ["half_cheetah", "--store", str(tmp_path), "--json"]
    document = json.loads(CliRunner().invoke(app, ["explain", "R-03", *arguments]).stdout)
    assert document["last_trip"]["run"] == "fallen" and document["last_trip"]["time"] == pytest.approx(1.3)
    other = CliRunner().invoke(app, ["explain", "R-08", *arguments[:-1]])
    assert f"Last tripped: in no run under {tmp_path}." in other.stdout


def test_explain_of_an_unknown_rule_lists_the_valid_ones() -> None:
    result = CliRunner().invoke(app, ["explain", "R-99", "ant"])
    assert isinstance(result.exception, SurefootError) and "R-03" in str(result.exception)


def test_new_writes_a_file_that_checks(tmp_path: Path) -> None:
    path = str(tmp_path / "mine.yaml")
    assert CliRunner().invoke(app, ["new", "half_cheetah", "--out", path]).exit_code == 0
    assert CliRunner().invoke(app, ["check", path]).exit_code == 0
    assert isinstance(CliRunner().invoke(app, ["new", "half_cheetah", "--out", path]).exception, SurefootError)


def test_replay_compares_with_other_rules(tmp_path: Path) -> None:
    rules = load_rules("half_cheetah")
    trace = next(t.trace for t in load_tests(rules).tests if t.name == "R-03 holds a lean of 1.02 rad")
    run, other = tmp_path / "run.npz", tmp_path / "milder.yaml"
    trace.save(run)
    other.write_text(rules.path.read_text().replace("tilt > 1.0 rad", "tilt > 1.5 rad"))
    result = CliRunner().invoke(app, ["replay", str(other), str(run), "--against", "half_cheetah", "--json"])
    document = json.loads(result.stdout)
    tilt = next(r for r in document["rules"] if r["id"] == "R-03")
    assert tilt["trips"] == 0 and tilt["changed_ticks"] > 0
    same = json.loads(CliRunner().invoke(app, ["replay", "half_cheetah", str(run), "--json"]).stdout)
    assert next(r for r in same["rules"] if r["id"] == "R-03")["false_alarms"] == 1


def test_replay_refuses_a_run_of_another_robot(tmp_path: Path) -> None:
    run = tmp_path / "run.npz"
    rules = load_rules("half_cheetah")
    load_tests(rules).tests[0].trace.save(run)
    result = CliRunner().invoke(app, ["replay", "ant", str(run)])
    assert isinstance(result.exception, SurefootError) and "another robot" in str(result.exception)


@pytest.mark.parametrize("series", ["0.1 x0", "fast", "1 .. x3", "", "1 for 70 ms", "1 for ever", "(1, 2", "1,, 2"])
def test_a_wrong_series_is_refused(series: str) -> None:
    from safety.series import samples

    with pytest.raises(SurefootError, match="series"):
        samples(series, 0.05)


def test_a_group_is_repeated_as_often_or_as_long_as_told() -> None:
    from safety.series import words

    assert words("(a, b x2) x2, c", 0.05) == ["a", "b", "b", "a", "b", "b", "c"]
    assert words("(a, b) for 150 ms", 0.05) == ["a", "b", "a"]


def test_a_series_is_read_tick_by_tick() -> None:
    from safety.series import samples

    values = samples("0.2 for 100 ms, 0 .. 1 x3, nan, missing, 3, stale", 0.05)
    assert [v.arrived for v in values] == [True] * 6 + [False, True, False]
    assert np.array([v.value for v in values]) == pytest.approx(
        [0.2, 0.2, 0, 0.5, 1, np.nan, np.nan, 3, 3], nan_ok=True
    )


def test_a_recorded_stop_is_replayed_with_what_the_guard_told_the_rules() -> None:
    rules = load_rules("half_cheetah")
    rows = np.zeros(60, row_dtype(rules.layout.robot))
    rows["start"][0], rows["signals"]["period"], rows["facts"] = True, 0.05, nominal_facts()
    rows["signals"]["torso"]["height"], rows["signals"]["torso"]["tilt"][35:] = 0.6, 1.7
    rows["facts"]["stop_requested"][30:], rows["facts"]["mode"][30:] = 1, MODES.index("stop")
    trace = rows_to_traces(rows, rules)[0]
    assert trace.fell == 54  # a second past a right angle
    (told,) = (r for r in replay(rules, [trace]).rules if r.id == "R-17")
    assert (told.trips, told.ticks) == (1, 30)
    rows["signals"]["period"] = 0.01
    with pytest.raises(SurefootError, match="for ticks of 50 ms; this run's were 10 ms"):
        rows_to_traces(rows, rules)
