"""Promotion to a robot that runs, through its control socket: here a server that swaps when it is asked."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_bridge import promotion
from agent_bridge.promotion import await_free, await_outcome
from agent_bridge.standing import find_robot
from runtime.control import ControlServer
from runtime.errors import SurefootError
from tests.agent_bridge.bench_kit import STACK, workbench


class FakeRobot:
    """Answers as a run does; a swap is through, or back, after some looks at its slots."""

    def __init__(self, store: Path, name: str = "robot", passes: bool = True) -> None:
        self.folder, self.passes, self.looks = store / name, passes, 0
        self.folder.mkdir(parents=True)
        self.slots: dict[str, dict[str, Any]] = {
            slot: {"active": entry["active"], "previous": None, "candidate": None, "stage": "active"}
            for slot, entry in workbench(store.parent / "shipped").status()["slots"].items()
        }
        self.asked: list[dict[str, Any]] = []
        self.server = ControlServer(self.folder, {"pid": 1})
        self.server.handlers |= {
            "status": lambda message: {"stack": STACK, "name": name, "tick": 7},
            "slots": self.look, "swap": self.swap, "rollback": self.rollback,
        }  # fmt: skip
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._done.is_set():
            self.server.poll(0.002)

    def look(self, message: dict[str, Any]) -> dict[str, Any]:
        self.looks += 1
        limb = self.slots["limb"]
        if limb["candidate"] and self.looks > 3:
            limb["active"], limb["candidate"] = (limb["candidate"] if self.passes else limb["active"]), None
        return {"slots": self.slots}

    def swap(self, message: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(message)
        self.slots["limb"] |= {"candidate": message["changes"]["limb"], "stage": "shadow"}
        self.looks = 0
        return {"transaction": "t1", "phase": "staged"}

    def rollback(self, message: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(message)
        return {"transaction": "t2", "phase": "rolled back"}

    def close(self) -> None:
        if not self._done.is_set():
            self._done.set()
            self._thread.join()
            self.server.close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(promotion, "POLL", 0.0)
    return tmp_path / "runs"


@pytest.fixture
def robot(store: Path) -> Iterator[FakeRobot]:
    made = FakeRobot(store)
    yield made
    made.close()


def accepted(store: Path, robot: FakeRobot) -> Any:
    bench = workbench(store)
    for version in workbench(store.parent / "shipped")._bases().values():
        from runtime.versions import VersionStore

        VersionStore(store / "versions").submit(version)
    bench.submit("limb", robot.slots["limb"]["active"], "h", params={"stance_frequency": 4.2})
    return bench


def test_a_promotion_is_a_swap_against_the_base_that_was_gated_and_waits_for_probation(store: Path, robot: FakeRobot):
    before = robot.slots["limb"]["active"]
    bench = accepted(store, robot)
    answer = bench.request_promotion(1)
    assert (answer["promoted"], answer["transaction"]) == ("requested", "t1")
    assert (robot.asked[0]["bases"], robot.asked[0]["ungated"]) == ({"limb": before}, None)
    assert await_outcome(bench, 1)["promoted"] is True
    assert bench.status()["slots"]["limb"]["active"] != before
    assert not (store / "bases").exists()


def test_a_version_that_is_rolled_back_is_told_so(store: Path, robot: FakeRobot):
    bench = accepted(store, robot)
    robot.passes = False
    bench.request_promotion(1)
    outcome = await_outcome(bench, 1)
    assert outcome["promoted"] is False
    assert "surefoot events robot" in outcome["say"]


def test_a_run_that_ends_in_probation_is_told_so(store: Path, robot: FakeRobot):
    bench = accepted(store, robot)
    bench.request_promotion(1)
    robot.close()
    assert "the run ended" in await_outcome(bench, 1)["say"]


def test_a_probation_of_somebody_else_is_waited_for(store: Path, robot: FakeRobot):
    robot.slots["limb"]["candidate"] = "f" * 64
    await_free(workbench(store))
    assert robot.slots["limb"]["candidate"] is None


def test_a_rollback_is_passed_on_with_its_reason(store: Path, robot: FakeRobot):
    workbench(store, agent="me").request_rollback("limb", "it limps")
    assert robot.asked[0]["reason"] == "me: it limps"


def test_of_two_robots_one_has_to_be_named(store: Path, robot: FakeRobot):
    other = FakeRobot(store, "other")
    try:
        with pytest.raises(SurefootError, match="name one with --run: other, robot"):
            find_robot(store, STACK)
    finally:
        other.close()
    assert find_robot(store, STACK) == robot.folder
    assert find_robot(store, "ant") is None
