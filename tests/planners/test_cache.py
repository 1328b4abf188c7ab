"""Compiled code is loaded by the next process, and never where a layer has been edited since."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controllers.generated import load_generated
from runtime.errors import SurefootError

STACK = """
robot: half_cheetah
rate: 20 Hz
layers: {limb: {use: limb.py}, joint: {use: pd}}
planner: {use: residual, horizon: 2, budget: 4}
cost: {progress: {weight: 1}}
"""
LIMB = '''"""Every joint to one angle."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Params:
    pass

@dataclass
class State:
    pass

def angle():
    return ANGLE

def update(p, s, x, c):
    """Write the targets."""
    c.limb.target[:, :] = angle()
'''
RUN = """
import json, sys
import numpy as np
from numba.core import event
from controllers.stack import load_stack
from planners.planner import make_planner
from planners.rollout import snapshot_dtype
with event.install_recorder("numba:compile") as compiled:
    stack = load_stack(sys.argv[1])
    planner, budget = make_planner(stack, threads=1)
    start = np.zeros(1, snapshot_dtype(stack))
    start["qpos"], start["memory"] = stack.robot.model.qpos0, stack.initial
    score = planner.decide(start, budget).score
    memory = stack.initial.copy()
    stack.tick(stack.params.copy(), memory, np.zeros(1, stack.robot.signals), np.zeros(1, stack.robot.residual))
print(json.dumps({"score": score, "control": float(memory["commands"]["joint"]["control"][0, 0, 0]),
                  "compiled": len(compiled.buffer)}))
"""


def run(folder: Path) -> dict[str, float]:
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", RUN, str(folder / "stack.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_an_edited_layer_changes_the_next_process_and_an_unchanged_one_compiles_nothing(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text(STACK)
    (tmp_path / "limb.py").write_text(LIMB.replace("ANGLE", "0.1"))
    first = run(tmp_path)
    assert first["compiled"] > 0
    assert first["control"] == 0.1
    again = run(tmp_path)
    assert again["compiled"] == 0
    assert (again["score"], again["control"]) == (first["score"], 0.1)
    (tmp_path / "limb.py").write_text(LIMB.replace("ANGLE", "0.2"))
    edited = run(tmp_path)
    assert edited["compiled"] > 0
    assert edited["control"] == 0.2
    assert edited["score"] != first["score"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "surefoot").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SurefootError, match=r"compiled code cannot be kept there: .*; set XDG_CACHE_HOME"):
        load_generated("surefoot_test", "main", "", {}, {})


def test_another_process_may_have_written_the_same_code_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that start together both find no folder; the second one's rename fails."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "surefoot" / "surefoot_race"
    rename = os.rename

    def lose(source: Path, target: Path) -> None:
        folder.mkdir()
        for name in ("__init__", "main"):
            (folder / f"{name}.py").write_text("WINNER = True")
        rename(source, target)

    monkeypatch.setattr(os, "rename", lose)
    assert load_generated("surefoot_race", "main", "WINNER = False", {}, {}).WINNER


LOCKED = """
from controllers.generated import keep_in_memory, load_generated
keep_in_memory(read={read})
known = load_generated("surefoot_known", "main", {source!r}, {{}}, {{}}).plus_one
assert (known(1), known(1.5)) == (2, 2.5)
new = load_generated("surefoot_new", "main", {source!r}, {{}}, {{}}).plus_one
assert new(1) == 2
print(sum(known.stats.cache_hits.values()) if {read} else 0)
"""
SOURCE = "from numba import njit\n\n@njit(cache=True)\ndef plus_one(x):\n    return x + 1\n"


@pytest.mark.parametrize("read", [True, False])
def test_a_locked_process_reads_compiled_code_and_writes_none(tmp_path: Path, read: bool) -> None:
    trusted = "from controllers.generated import load_generated\n" + (
        f"assert load_generated('surefoot_known', 'main', {SOURCE!r}, {{}}, {{}}).plus_one(1) == 2"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", trusted], check=True, env=environment)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    program = LOCKED.format(read=read, source=SOURCE)
    done = subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True, text=True)
    assert int(done.stdout) == read  # of the two types, one was compiled before
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
