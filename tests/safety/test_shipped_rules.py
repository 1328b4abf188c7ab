"""The shipped rules: their tests pass, nothing in them is untested, and every mutant is killed or explained."""

import pytest

from runtime.config import available
from safety.coverage import measure
from safety.rulefile import load_rules
from safety.ruletests import load_tests, run_tests


def test_there_are_rules_for_each_robot_and_kind_of_configuration() -> None:
    assert {"ant", "half_cheetah", "ant-multirate", "half_cheetah-multirate"} <= set(available("rules"))


@pytest.mark.parametrize("name", available("rules"))
def test_rules_say_what_their_tests_expect(name: str) -> None:
    rules = load_rules(name)
    assert run_tests(rules, load_tests(rules)) == []


@pytest.mark.parametrize("name", available("rules"))
def test_every_rule_says_why_and_names_its_hazard(name: str) -> None:
    assert all(rule.why and rule.hazard for rule in load_rules(name).rules)


@pytest.mark.parametrize("name", available("rules"))
def test_the_coverage_gate_is_open(name: str) -> None:
    rules = load_rules(name)
    assert measure(rules, load_tests(rules)).problems() == []
