"""Every wrong rule file gives its own error, at its place, with a remedy."""

import re
from pathlib import Path

import pytest

from safety.findings import RuleFileError
from safety.rulefile import load_rules

FILES = sorted((Path(__file__).parent / "wrong").glob("*.yaml"))


def test_there_are_forty_of_them() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_wrong_file_says_where_and_what_would_be_right(path: Path) -> None:
    match = re.match(r"# expect: (\S+) at (\d+):(\d+)\n", path.read_text())
    assert match is not None
    with pytest.raises(RuleFileError) as caught:
        load_rules(str(path))
    found = [(f.code, f.line, f.column) for f in caught.value.findings]
    assert (match[1], int(match[2]), int(match[3])) in found
    assert all(f.message and f.remedy for f in caught.value.findings)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_robot_is_refused() -> None:
    from runtime.records import load_robot

    with pytest.raises(RuleFileError, match="wrong-robot: these rules are for 'ant', the robot is 'half_cheetah'"):
        load_rules("ant", load_robot("half_cheetah"))


def test_a_stack_that_ticks_at_another_rate_is_refused() -> None:
    with pytest.raises(RuleFileError, match="rate: the stack ticks at 50 Hz; these rules are for 20 Hz"):
        load_rules("ant", period=0.02)


def test_all_errors_of_a_file_are_reported_together(tmp_path: Path) -> None:
    good = Path("configs/rules/ant.yaml").read_text()
    path = tmp_path / "two.yaml"
    wrong = good.replace("when: tilt + 0.1 s", "when: tlt + 0.1 s").replace("plan_age > 150 ms", "plan_age > 150 m")
    path.write_text(wrong)
    with pytest.raises(RuleFileError) as caught:
        load_rules(str(path))
    assert [f.code for f in caught.value.findings] == ["unknown-signal", "unit-mismatch"]
