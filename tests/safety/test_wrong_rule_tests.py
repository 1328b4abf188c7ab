"""A rule test that the kernel would not run as it is written is refused, with its name."""

from pathlib import Path

import numpy as np
import pytest

from runtime.errors import SurefootError
from runtime.units import read_quantity
from safety.rulefile import load_rules
from safety.ruletests import TestFile, load_tests
from safety.series import samples
from safety.trace import run_online

NOMINAL = "{q: 0, qd: 0, tilt: 0.1, height: 0.6, u: 0, missed: 0}"


def write(tmp_path: Path, given: str = "{}", expect: str = '{R-10: "idle"}', nominal: str = NOMINAL) -> TestFile:
    path = tmp_path / "mine.tests.yaml"
    path.write_text(f"nominal: {nominal}\ntests:\n  - name: one test\n    given: {given}\n    expect: {expect}\n")
    return load_tests(load_rules("half_cheetah"), path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{sent: "0 x4, 1"}', "sent is made from the command by the limits; give the command instead"),
        ('{"sent[bthigh]": "1"}', "sent is made from the command by the limits"),
        ('{missed: "0 x4, 1, 2, 3"}', "missed is counted by the monitor; write 1 for each tick without an answer"),
        ("{missed: nan}", "missed is counted by the monitor"),
        ("{missed: stale}", "missed is counted by the monitor"),
        ("{stop_requested: missing}", "stop_requested is true or false and always known; write yes or no"),
        ("{stop_requested: 0.4}", "stop_requested is true or false"),
        ('{plan_age: "0.1, stale"}', "plan_age is the guard's own and never stale"),
        ('{u: "0.1, stale"}', "u is the guard's own and never stale"),
        ('{"tilt[bthigh]": 1}', r"tilt is a single value; write it without \[bthigh\]"),
        ('{rearm: "no, 1"}', "rearm is '1'; write yes or no"),
        ("{1: 0}", "unknown signal '1'"),
        ('{tilt: "high"}', "tilt: series 'high': 'high' is no value"),
        ("{mode: walk x0}", "mode: series 'walk x0': nothing to read at 'walk x0'"),
        ('{tilt: "1 x1000000000000"}', "tilt: series '1 x1000000000000': longer than 1,000,000 ticks"),
        ('{tilt: "(0, 1) x600000"}', r"tilt: series '\(0, 1\) x600000': longer than 1,000,000 ticks"),
        ('{tilt: "1 for 1000000 s"}', "tilt: series '1 for 1000000 s': longer than 1,000,000 ticks"),
    ],
)
def test_a_series_that_the_kernel_would_not_read_is_refused(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(SurefootError, match=f"mine.tests.yaml: one test: {message}"):
        write(tmp_path, given)


@pytest.mark.parametrize(
    ("expect", "message"), [("{}", "one test: 'expect' names no rule"), ("{1: idle}", "one test: unknown rule '1'")]
)
def test_a_test_that_expects_nothing_of_a_rule_is_refused(tmp_path: Path, expect: str, message: str) -> None:
    with pytest.raises(SurefootError, match=message):
        write(tmp_path, expect=expect)


def test_a_nominal_value_is_one(tmp_path: Path) -> None:
    with pytest.raises(SurefootError, match="nominal q changes; give one value"):
        write(tmp_path, nominal='{q: "0 x50"}')


def test_missed_answers_are_counted_one_by_one(tmp_path: Path) -> None:
    from safety.compiler import compile_rules
    from safety.tape import new_inputs, new_memory

    rules = load_rules("half_cheetah")
    trace = write(tmp_path, '{missed: "0, 1 x3, 0"}').tests[0].trace
    tape = compile_rules(rules)
    seen = run_online(rules, tape, new_memory(tape), new_inputs(tape), trace).seen
    assert seen is not None
    assert seen[:, rules.signals["missed"].source.offset].tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("series", ["0.2 for 1e400 ms", "0.2 for 1e308 h", "0.2 for 1e300 ms", "0.2 for 3 $"])
def test_a_series_that_cannot_be_counted_in_ticks_is_refused(series: str) -> None:
    with pytest.raises(SurefootError, match=r"^series '0.2 for "):
        samples(series, 0.05)


@pytest.mark.parametrize("text", ["1e400", "1e308 h", "-1e400 rad", "1 us^9" + "*us^9" * 6, "1 h^9" + "*h^9" * 9])
def test_a_quantity_is_finite(text: str) -> None:
    with pytest.raises(SurefootError, match=r"finite|beyond"):
        read_quantity(text)


def test_hold_block_and_damp_read_the_declared_signals() -> None:
    from safety.compiler import compile_rules

    rules = load_rules("ant-multirate")
    config = compile_rules(rules).config[0]
    widths = np.cumsum([0, *[s.width for s in rules.signals.values()]])
    first = dict(zip(rules.signals, widths.tolist(), strict=False))
    assert (config["position"], config["velocity"]) == (first[rules.limits.blocked_signal], first["qd"])
