"""Falls under one fault are seen beside seven in which nothing changed, and chance alone is not taken for them."""

import numpy as np
import pytest

from agent_bridge.gate.gatefile import load_gate
from agent_bridge.gate.safety import chance_of_falls, safety
from agent_bridge.gate.stage import Subject
from agent_bridge.gate.workers import Evaluator, Played
from controllers.stack import load_stack
from runtime.versions import stack_versions

STACK = load_stack("half_cheetah-rhythm")
VERSIONS = stack_versions(STACK)
GATE = load_gate("half_cheetah")


class Told(Evaluator):
    """Its episodes fall as the test says: (side, fault, pair) -> fallen."""

    def __init__(self, falls):
        super().__init__("sequential", 1)
        self.falls, self.asked = falls, []

    def both(self, parent, candidate, episodes):
        self.asked += episodes
        pairs = [(e.condition.name, e.seed - GATE.seeds["gate"].start) for e in episodes]
        return tuple([Played(0, fallen=self.falls(side, *pair)) for pair in pairs] for side in ("parent", "candidate"))


def judge(tmp_path, falls):
    told = Told(falls)
    return safety(Subject(GATE, STACK, "limb", VERSIONS["limb"], VERSIONS, "behaviour", tmp_path, told, 0)), told.asked


def test_falls_under_one_fault_of_eight_are_seen(tmp_path):
    found, _ = judge(tmp_path, lambda side, fault, pair: side == "candidate" and fault == "push" and pair % 4 != 3)
    assert found.verdict == "reject"
    assert "falls under push: 18 of 24 episodes, its parent 0" in found.reasons[0]


def test_what_is_run_again_has_other_seeds(tmp_path):
    found, asked = judge(tmp_path, lambda side, fault, pair: side == "candidate" and fault == "push" and pair < 6)
    assert found.verdict == "pass"
    assert found.figures["push, again"]["candidate"] == {"episodes": 24, "falls": 0, "interventions": 0, "errors": 0}
    assert len({e.seed for e in asked if e.condition.name == "push"}) == 32


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_twin_that_falls_by_chance_is_seldom_rejected(tmp_path, rate):
    chance = np.random.default_rng(1)
    verdicts = [judge(tmp_path, lambda *_: bool(chance.random() < rate))[0].verdict for _ in range(150)]
    assert verdicts.count("reject") <= 5


def test_the_sign_test_is_exact():
    assert chance_of_falls(6, 0) == pytest.approx(2.0**-6)
    assert chance_of_falls(1, 1) == pytest.approx(0.75)
