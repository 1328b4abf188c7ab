"""A resumed run begins a new recording; what was recorded before stays whole beside it."""

from pathlib import Path

import pytest

from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.lifecycle import Lifecycle, Stage
from runtime.replay import replay_run
from runtime.resumed import earlier, journal_of_tape, keep_earlier, mark_resumed
from runtime.run import Request, run
from runtime.tapefile import read_tape
from runtime.versions import stack_versions

STACK = "half_cheetah-rhythm"


def record(folder: Path, seed: int, steps: int) -> bytes:
    """A run of some ticks in a folder that may hold what `keep_earlier` left there; returns its rows."""
    summary = run(Request(STACK, seed=seed, steps=steps, out=folder.with_name(f"scratch-{seed}")))
    for path in summary.folder.iterdir():
        path.replace(folder / path.name)
    return read_tape(summary.stack.robot, folder).rows.tobytes()


def test_each_recording_is_a_run_that_replays(tmp_path: Path) -> None:
    """The rows of a resumed run were taken for the first one's, and its seed was not recorded."""
    folder = tmp_path / "demo"
    folder.mkdir()
    assert keep_earlier(folder) is None
    recorded = [record(folder, 3, 8)]
    for seed, steps in ((4, 12), (5, 5)):
        kept = keep_earlier(folder)
        assert kept == folder / "earlier" / f"demo-{len(recorded)}"
        assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["config.yaml"]
        recorded.append(record(folder, seed, steps))
    folders = [*earlier(folder), folder]
    robot = load_stack(STACK).robot
    assert [read_tape(robot, f).rows.tobytes() for f in folders] == recorded
    reports = [replay_run(f) for f in folders]
    assert [(r.compared, r.differing, r.problem) for r in reports] == [(8, 0, None), (12, 0, None), (5, 0, None)]


def test_a_move_that_was_cut_short_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "config.yaml").write_text("run: {}\n")
    names = ["results.json", "tape-000.mcap", "tape-001.mcap"]
    for name in names:
        (folder / name).write_text(name)
    original = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name == "tape-001.mcap":
            raise OSError(28, "No space left on device")
        return original(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        with pytest.raises(SurefootError, match="demo-1: what was recorded before cannot be moved there: No space"):
            keep_earlier(folder)
    assert earlier(folder) == []
    kept = keep_earlier(folder)
    assert kept is not None
    assert sorted(p.name for p in kept.iterdir()) == ["config.yaml", *names]
    assert earlier(folder) == [kept]
    assert keep_earlier(folder) is None


def test_the_journal_tells_what_a_recording_began_with(tmp_path: Path) -> None:
    stack = load_stack(STACK)
    own = {slot: version.hash for slot, version in stack_versions(stack).items()}
    life = Lifecycle(tmp_path, own)
    changes = {"limb": "c" * 64}
    for stage in (Stage.SUBMITTED, Stage.STAGED, Stage.SHADOW, Stage.PROBATION):
        life.advance(stage, changes, tick=7)
    mark, rows = journal_of_tape(tmp_path)
    assert mark is None
    assert rows[-1]["stage"] == Stage.PROBATION

    mark_resumed(Lifecycle(tmp_path, own), stack)  # it had not passed probation
    mark, rows = journal_of_tape(tmp_path)
    assert mark is not None
    assert (mark["slots"], mark["own"], rows) == (own, True, [])

    life = Lifecycle(tmp_path, own)
    for stage in (Stage.SUBMITTED, Stage.STAGED, Stage.SHADOW, Stage.PROBATION, Stage.ACTIVE):
        life.advance(stage, changes, tick=9)
    assert journal_of_tape(tmp_path)[1][-1]["stage"] == Stage.RETIRED
    mark_resumed(Lifecycle(tmp_path, own), stack)
    mark, rows = journal_of_tape(tmp_path)
    assert mark is not None
    assert (mark["slots"], mark["own"], rows) == ({**own, **changes}, False, [])
