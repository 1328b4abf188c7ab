"""The battery in tests/gate_modules: each module is stopped by the stage meant for it, with a reason that names why."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent_bridge.gate import workers as gate_workers
from agent_bridge.gate.conditions import NOMINAL, Condition
from agent_bridge.gate.exact import COMPARED, first_difference, same_actions
from agent_bridge.gate.gate import RUN, GateResult
from agent_bridge.gate.gatefile import STAGES, load_gate
from agent_bridge.gate.stage import StageResult, Subject
from agent_bridge.gate.statistics import Verdict
from agent_bridge.gate.workers import Evaluator, GuestSpec
from controllers.stack import load_stack
from runtime.lineage import descend
from runtime.versions import stack_versions
from tests.agent_bridge.local_guests import LocalGuest

FOLDER = Path(__file__).parents[1] / "gate_modules"
BATTERY = sorted(FOLDER.glob("*.py"))
SHIPPED = Path(__file__).parents[2] / "controllers" / "limb" / "two_rate_gait.py"
FASTER = {"stance_frequency": 5.0, "swing_frequency": 5.0}


def header(path):
    lines = path.read_text().splitlines()[:4]
    return dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all, so that the parent's golden is recorded once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def local_guests(monkeypatch, tmp_path):
    monkeypatch.setattr(GuestSpec, "open", lambda spec: LocalGuest(spec))
    monkeypatch.setenv("XDG_STATE_HOME", str(Path(tmp_path.parent) / "state"))
    yield
    gate_workers.forget_all()


def subject(store, source, kind="behaviour", changes=None):
    stack = load_stack(str(FOLDER / "half_cheetah-damped.yaml"))
    versions = stack_versions(stack)
    candidate = descend(source, versions["limb"], changes)
    gate = load_gate(str(FOLDER / "gate.yaml"))
    return Subject(gate, stack, "limb", candidate, versions, kind, store, Evaluator("sequential", 1), 0)


def run(subject, stage):
    """A stage's result; the sizes come from the static stage."""
    static = RUN["static"](subject)
    return static if stage == "static" else RUN[stage](subject)


def test_every_module_says_where_it_is_stopped():
    assert len(BATTERY) >= 12
    for path in BATTERY:
        assert header(path)["stage"] in STAGES, path.name
        assert header(path)["why"], path.name


@pytest.mark.parametrize("path", BATTERY, ids=lambda p: p.stem)
def test_the_stage_meant_for_it_rejects(path, store):
    found = run(subject(store, path.read_text(), header(path).get("kind", "behaviour")), header(path)["stage"])
    assert found.verdict == "reject"
    assert header(path)["why"] in " | ".join(found.reasons)


@pytest.mark.parametrize("path", BATTERY, ids=lambda p: p.stem)
def test_no_cheap_stage_before_rejects(path, store):
    """The module is one that only its own stage can catch; the whole way is walked by `surefoot bench gate`."""
    one = subject(store, path.read_text(), header(path).get("kind", "behaviour"))
    for stage in ("static", "smoke", "golden")[: STAGES.index(header(path)["stage"])]:
        assert RUN[stage](one).reasons == [], stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_better_version_passes(store, stage):
    found = run(subject(store, SHIPPED.read_text(), changes=FASTER), stage)
    assert (found.verdict, found.reasons[1:]) == ("pass", [])


@pytest.mark.parametrize("stage", ["static", "smoke", "golden", "latency"])
def test_a_refactoring_passes(store, stage):
    source = SHIPPED.read_text().replace("wave", "swing")
    assert run(subject(store, source, "refactor"), stage).verdict == "pass"


@pytest.mark.parametrize("stage", COMPARED)
def test_a_refactoring_walks_in_its_parents_footsteps(store, stage):
    source = SHIPPED.read_text().replace("wave", "swing")
    assert same_actions(subject(store, source, "refactor"), stage).verdict == "pass"


REFLEX = """\
    if x.torso.vx < s.speed - 2.6:
        s.hit = 1.0
    s.speed = x.torso.vx
"""
MEMORY = """
    speed: float = state(0.0, unit="m/s", doc="Forward speed of the tick before.")
    hit: float = state(0.0, unit="1", doc="1 once something pushed.")
"""


def with_reflex(source):
    """The gait with a reflex that nothing triggers but a push: it crouches from then on."""
    crouching = source.replace("[leg, segment] = centre", "[leg, segment] = centre - 0.2 * s.hit")
    remembering = crouching.replace("\n\n\ndef update", f"{MEMORY}\n\ndef update")
    return remembering.replace("    for _ in", f"{REFLEX}    for _ in")


def test_a_simplification_that_drops_a_reflex_is_rejected(store):
    """Where nothing pushes, the reflex changes no bit; its parent is what has it."""
    one = subject(store, SHIPPED.read_text(), "simplify")
    hard = Condition("push", push=3.0)
    one.gate = replace(one.gate, safety=replace(one.gate.safety, faults=(NOMINAL, hard)))
    one.bases["limb"] = descend(with_reflex(SHIPPED.read_text()), one.bases["limb"])
    assert [run(one, stage).reasons for stage in ("static", "smoke", "golden")] == [[], [], []]
    assert same_actions(one, "score").reasons == []
    found = same_actions(one, "safety")
    assert found.verdict == "reject"
    assert "not the same actions: under push it commands something else in tick" in found.reasons[0]
    assert one.evaluator.worst[1].condition.name == "push"


def test_the_first_tick_that_differs_is_told():
    assert first_difference(b"", b"") is None
    assert first_difference(b"a" * 24, b"a" * 16 + b"b" * 8) == 2
    assert first_difference(b"a" * 24, b"a" * 8) == 1


def test_a_version_that_changes_nothing_is_unchanged(store):
    assert run(subject(store, SHIPPED.read_text() + "\n"), "score").verdict == "unchanged"


def test_a_simplification_has_to_be_smaller(store):
    found = run(subject(store, SHIPPED.read_text() + "\n", "simplify"), "static")
    assert "not simpler" in found.reasons[0]


def test_a_result_is_strict_json():
    figures = {"tail_p": float("nan"), "lower": -float("inf"), "pairs": 4, "verdict": Verdict.ACCEPT}
    stage = StageResult("score", figures={"target": figures})
    document = GateResult("accept", "score", ["better"], [stage], 1, 2, 3.0, 4).document()
    shown = json.loads(json.dumps(document, allow_nan=False))["stages"][0]["figures"]["target"]
    assert shown == {"tail_p": None, "lower": None, "pairs": 4, "verdict": "accept"}
    assert document.keys() >= {"verdict", "stage", "reasons", "stages", "env_steps", "planner_steps", "seconds"}
