"""The gate's and the records' commands: wrong requests are one line each, before anything is written."""

import json
from typing import Any

import pytest

from agent_bridge.commands import parent_versions
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Trial
from controllers.stack import load_stack
from runtime import cli
from runtime.config import CONFIGS
from runtime.errors import SurefootError
from runtime.lineage import descend
from runtime.versions import VersionStore, stack_versions
from tests.agent_bridge.test_promotion import FakeRobot

LAYER = CONFIGS.parent / "controllers" / "limb" / "two_rate_gait.py"


@pytest.fixture
def surefoot(monkeypatch, tmp_path, capsys):
    """Runs a command in an empty folder; returns its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["surefoot", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((LAYER, "--slot", "limb", "--robot", "ant", "--stack", "half_cheetah"), "the stack half_cheetah moves"),
        ((LAYER, "--slot", "lim", "--robot", "half_cheetah"), "no such slot; did you mean 'limb'"),
        (("nothing.py", "--slot", "limb", "--robot", "half_cheetah"), "nothing.py: cannot be read: No such file"),
        ((LAYER, "--slot", "limb", "--robot", "half_cheetah", "--kind", "refactr"), "unknown 'refactr'; did you mean"),
        ((LAYER, "--slot", "limb", "--robot", "half_cheetah", "--gate", "ant"), "gate ant: judges ant"),
        ((LAYER, "--slot", "limb", "--robot", "half_cheetah", "--set", "clok=1"), "no parameter 'clok'"),
        ((LAYER, "--slot", "limb", "--robot", "half_cheetah", "--set", "clock"), "expected name=value"),
        ((LAYER, "--slot", "limb", "--robot", "half_cheetah", "--set", "clock=[1"), "'[1' is not a value; such as 9.5"),
        ((LAYER, "--slot", "limb", "--robot", "half_cheetah", "--run", "demo"), "no run 'demo' here or in runs/"),
        ((LAYER, "--slot", "limb", "--robot", "half_cheetah", "--sandbox", "proces"), "unknown level; did you mean"),
        ((LAYER, "--slot", "limb", "--robot", "half_cheetah", "--store", "/proc/runs"), "store cannot be written"),
    ],
)  # fmt: skip
def test_a_wrong_gate_request_is_one_line(surefoot, tmp_path, words, message):
    code, out, error = surefoot("gate", *map(str, words))
    assert code == 2 and out == ""
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def robot(tmp_path):
    """A run of half_cheetah-rhythm that has swapped its limb before."""
    robot, store = FakeRobot(tmp_path / "runs"), VersionStore(tmp_path / "runs" / "versions")
    for version in stack_versions(load_stack("half_cheetah-rhythm")).values():
        store.submit(version)
    swapped = descend(LAYER.read_text(), store.get(robot.slots["limb"]["active"]), {"stance_frequency": 7.0})
    store.submit(swapped)
    robot.slots["limb"]["active"] = swapped.hash
    yield robot
    robot.close()


GATE = ("gate", str(LAYER), "--slot", "limb", "--robot", "half_cheetah", "--set", "swing_frequency=3")


@pytest.mark.parametrize("words", [(), ("--run", "robot")])
def test_a_gate_compares_with_what_runs(surefoot, robot, monkeypatch, words):
    """A verdict against the stack file's own versions would be refused after the first swap."""
    asked: dict[str, Any] = {}

    def run_gate(candidate, slot, stack, store, **options):
        asked.update(options, values=candidate.values)
        raise SurefootError("enough")

    monkeypatch.setattr("agent_bridge.gate.gate.run_gate", run_gate)
    assert surefoot(*GATE, "--stack", "half_cheetah-rhythm", *words)[2].strip().endswith("enough")
    assert asked["bases"]["limb"].hash == robot.slots["limb"]["active"]
    assert (asked["values"]["stance_frequency"], asked["values"]["swing_frequency"]) == (7.0, 3.0)


def test_a_run_of_another_stack_is_refused(surefoot, robot):
    assert "it runs half_cheetah-rhythm; pass --stack half_cheetah-rhythm" in surefoot(*GATE, "--run", "robot")[2]


def test_without_a_run_the_base_is_the_stores(tmp_path):
    stack = load_stack("half_cheetah-rhythm")
    assert parent_versions(stack, tmp_path, None) == stack_versions(stack)
    assert list(tmp_path.iterdir()) == []
    limb = stack_versions(stack)["limb"]
    adopted = descend(limb.source, limb, {"stance_frequency": 7.0})
    VersionStore(tmp_path / "versions").submit(adopted)
    (tmp_path / "bases").mkdir()
    layers = {"limb": {"use": f"../versions/{adopted.hash}/layer.py"}, "joint": {"use": "pd"}}
    (tmp_path / "bases" / "half_cheetah-rhythm.yaml").write_text(json.dumps({"layers": layers}))
    assert parent_versions(stack, tmp_path, None) == {**stack_versions(stack), "limb": adopted}


@pytest.fixture
def store(tmp_path):
    for kind in ("gate", "probe"):
        Ledger(tmp_path / "runs" / "trials.jsonl").append(Trial(kind, kind, "Ant-v5", scores=(1.0,)))
    return tmp_path / "runs"


def test_verify_finds_a_row_that_was_touched(surefoot, store):
    code, out, _ = surefoot("ledger", "verify", "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "rows": 2, "first_bad": None, "reason": ""})
    path = store / "trials.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    code, out, _ = surefoot("ledger", "verify", "--json")
    assert (code, json.loads(out)["first_bad"]) == (1, 2)


def test_trials_are_shown_and_filtered(surefoot, store):
    code, out, _ = surefoot("trials", "--json", "--kind", "probe")
    assert (code, [t["index"] for t in json.loads(out)["trials"]]) == (0, [2])
    code, out, _ = surefoot("trials", "show", "1")
    assert code == 0 and "Ant-v5" in out
    code, _, error = surefoot("trials", "show", "3")
    assert code == 2 and "the ledger has the rows 1 to 2" in error


def test_an_unknown_failure_is_one_line(surefoot, store):
    code, _, error = surefoot("failures", "replay", "abc")
    assert code == 2 and "failure abc: not in" in error


def test_what_is_derived_is_made_on_demand(surefoot, store):
    code, out, _ = surefoot("ledger", "derive")
    assert code == 0 and len(out.splitlines()) == 3
    assert (store / "summary.csv").exists()
