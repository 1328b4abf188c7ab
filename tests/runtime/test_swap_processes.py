"""Swaps with real processes: a locked worker comes in and dies, and a runtime that is killed comes back as it was."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bench.crash import start
from controllers.stack import load_stack
from runtime.control import ask
from runtime.errors import SurefootError
from runtime.lineage import descend
from runtime.remote import RemoteGuest
from runtime.sandbox import Level, available_level
from runtime.swap_client import events, request_swap, slots, store_of, wait
from runtime.versions import Version, make_version, stack_versions

STACK = "ant-rhythm"
full = pytest.mark.skipif(available_level() < Level.FULL, reason="this kernel offers no Landlock or seccomp")
PATIENCE = 240.0  # [s] for what takes seconds on a free machine
OPTIONS = ("--episodes", "50", "--probation", "20")


def edited(folder: Path, slot: str, remark: str) -> tuple[Version, dict[str, str]]:
    """A version that does the same as the active one; and what is active."""
    store = store_of(folder)
    active = {s: str(entry["active"]) for s, entry in slots(folder).items()}
    base = store.get(active[slot])
    version = descend(f"{base.source}\n# {remark}\n", base)
    store.submit(version)
    return version, active


@full
def test_a_killed_runtime_comes_back_with_what_passed_probation(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "demo"
    folder.parent.mkdir()
    run = start(folder, tmp_path / "log", "run", STACK, "--realtime", "--out", str(folder), *OPTIONS, patience=PATIENCE)
    try:
        first, active = edited(folder, "limb", "first")
        done = wait(folder, request_swap(folder, {"limb": first.hash}, active, ungated="test")["transaction"], PATIENCE)
        assert (done["phase"], done["reason"]) == ("active", "")
        second, active = edited(folder, "joint", "second")
        asked = request_swap(folder, {"joint": second.hash}, active, ungated="test")
        third, _ = edited(folder, "balance", "third")
        with pytest.raises(SurefootError, match="wait for its verdict"):
            request_swap(folder, {"balance": third.hash}, active, ungated="test")
        wait(folder, asked["transaction"], PATIENCE, until=("shadow", "committing", "probation"))
        status = ask(folder, {"ask": "status"})
        assert {w["sandbox"] for w in status["workers"] if w["ready"]} == {"landlock+seccomp"}
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert json.loads((folder / "active.json").read_text())["slots"]["limb"]["active"] == first.hash
        run = start(folder, tmp_path / "log", "resume", str(folder), *OPTIONS, patience=PATIENCE)
        now = {slot: entry["active"] for slot, entry in slots(folder).items()}
        assert now == {**active, "limb": first.hash}
        assert ask(folder, {"ask": "status"})["slots"] == now
        ends = [row["reason"] for row in events(folder) if row.get("stage") == "rejected"]
        assert ends == ["the run ended before its verdict"]
    finally:
        run.kill()
        run.wait()


@full
def test_a_remote_guest_answers_as_one_at_home_and_says_why_it_fails() -> None:
    stack = load_stack(STACK)
    own = stack_versions(stack)
    with RemoteGuest(stack, answer_deadline=20.0) as guest:
        assert guest.level is Level.FULL
        assert guest.loaded == {slot: version.hash for slot, version in own.items()}
        assert at_home(stack) == remotely(guest)
        guest.reset(0)
        assert at_home(stack) == remotely(guest)
        os.kill(guest.worker.child.pid, signal.SIGKILL)
        with pytest.raises(SurefootError, match="killed by signal 9"):
            remotely(guest)
    source = own["joint"].source.replace("legs, segments = ", "y = x.torso.altitude\n    legs, segments = ")
    with pytest.raises(SurefootError, match=r"layer\.py:\d+: no field 'altitude'") as failed:
        RemoteGuest(stack, {"joint": make_version(source, {})})
    assert failed.value.stage == "compile"  # type: ignore[attr-defined]


def inputs(stack: Any) -> Any:
    import numpy as np

    model = stack.robot.model
    signals = np.zeros(1, stack.robot.signals)
    for tick in range(4):
        signals["tick"], signals["time"] = tick, tick * stack.period
        yield model.qpos0, np.full(model.nv, 0.1 * tick), signals, np.zeros(stack.robot.shape)


def remotely(guest: Any) -> list[bytes]:
    return [(guest.answer(*seen), guest.commands.tobytes())[1] for seen in inputs(guest.stack)]


def at_home(stack: Any) -> list[bytes]:
    from runtime.guest import Guest

    return remotely(Guest(stack, None, None))
