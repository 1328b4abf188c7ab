"""The battery in tests/bad_modules, submitted to running loops: each ends where its first lines say."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.lineage import descend
from runtime.mailbox import mail_layout
from runtime.probation import Policy
from runtime.recruit import GuestFailed, Recruit
from runtime.sandbox import Level, Limits, available_level
from runtime.versions import make_version, stack_versions
from runtime.worker import WorkerSpec
from tests.runtime.swap_kit import Loop
from tests.runtime.test_bad_modules import header, those

STACK = load_stack("ant-rhythm")
RULED = load_stack("ant-rhythm", ("rules=ant",))
CAREFUL = Policy(shadow=3, ticks=700)
BEGIN = {"nan_on_the_500th_tick": 500, "slow_on_the_500th_tick": 500, "violates_a_rule_hard": 100, "goes_limp": 100}
"""Ticks of its own after which a module shows its fault; the others begin with it."""
full = pytest.mark.skipif(available_level() < Level.FULL, reason="this kernel offers no Landlock or seccomp")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    made = Loop(STACK, tmp_path_factory.mktemp("static") / "run", CAREFUL)
    made.run(3)
    return made


def submitted(path: Path, loop: Loop) -> Any:
    return descend(path.read_text(), loop.swap.versions[header(path)["slot"]])


@pytest.mark.parametrize("path", **those(ends=["static"]))
def test_a_running_loop_refuses_it_at_once(loop: Loop, path: Path) -> None:
    with pytest.raises(SurefootError) as refused:
        loop.ask({header(path)["slot"]: submitted(path, loop)})
    assert "\n" not in str(refused.value)
    assert loop.swap.transactions == []
    loop.run(1)
    assert loop.rows["miss"].sum() == 0


@pytest.fixture(scope="module")
def locked() -> dict[str, GuestFailed]:
    """What became of the modules that only a locked worker can refuse, all started together."""
    spec = WorkerSpec(stack={"name": STACK.name, "document": STACK.document, "path": "x.yaml"}, planner="none",
                      fifo=False, lockstep=True)  # fmt: skip
    own, layout = stack_versions(STACK), mail_layout(STACK.robot)
    recruits: dict[str, Recruit] = {}
    failed: dict[str, GuestFailed] = {}
    for path in those(ends=["load", "compile"])["argvalues"]:
        version = make_version(path.read_text(), {})  # with its own defaults, which may be what is wrong
        recruits[path.stem] = Recruit(spec, own | {"joint": version}, Limits(), layout)
    end = time.monotonic() + 120.0
    try:
        while set(recruits) - set(failed) - {"hangs_at_import", "hangs_at_compile"} and time.monotonic() < end:
            for name in set(recruits) - set(failed):
                try:
                    recruits[name].poll()
                    assert not recruits[name].ready, name
                except GuestFailed as error:
                    failed[name] = error
            time.sleep(0.02)
        for name in set(recruits) - set(failed):
            failed[name] = GuestFailed("past its deadline", recruits[name].stage)
    finally:
        for recruit in recruits.values():
            recruit.close()
    return failed


@full
@pytest.mark.parametrize("path", **those(ends=["load", "compile"]))
def test_its_locked_worker_refuses_it(locked: dict[str, GuestFailed], path: Path) -> None:
    error = locked[path.stem]
    assert (error.stage, header(path)["why"] in str(error)) == (header(path)["ends"], True), error


@pytest.mark.parametrize("path", **those(ends=["probation"]))
def test_it_is_rolled_back_in_time_and_the_robot_goes_on(tmp_path: Path, path: Path) -> None:
    loop = Loop(RULED if "rule" in path.stem else STACK, tmp_path / "run", CAREFUL)
    loop.timed = header(path)["why"] == "deadline"
    loop.run(150)
    base = dict(loop.lifecycle.active())
    loop.ask({"joint": submitted(path, loop)})
    begun = int(loop.guard.state["tick"]) + BEGIN.get(path.stem, 0)
    while loop.phase not in ("rolled back", "rejected") and loop.guard.state["tick"] < begun + 500:
        loop.run(1)
    assert loop.phase == "rolled back", loop.reason
    assert header(path)["why"] in loop.reason
    assert int(loop.guard.state["tick"]) <= begun + CAREFUL.shadow + int(header(path)["within"])
    loop.timed = False
    loop.run(5)
    assert loop.rows["seat"][-1] == 0
    assert loop.lifecycle.active() == base
    assert np.isfinite(loop.rows["sent"]).all()
    assert loop.guard.state["guard_missed"] == 0
    stages = [row["stage"] for row in loop.lifecycle.journal.rows() if "stage" in row]
    assert stages == ["active", "submitted", "staged", "shadow", "probation", "rolled back", "quarantined"]
