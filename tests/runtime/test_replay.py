"""What a replay compares in a run whose layers were swapped."""

from pathlib import Path

from runtime.journal import Journal
from runtime.replay import first_swap, replay_run
from runtime.run import Request, run

COMMIT = 12


def recorded(folder: Path) -> Path:
    run(Request("half_cheetah-rhythm", steps=20, out=folder))
    return folder


def write(folder: Path, *rows: dict[str, object]) -> None:
    journal = Journal(folder / "events.jsonl")
    with journal.locked():
        for row in rows:
            journal.append(row)


def test_a_run_without_swaps_is_compared_to_its_end(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run")
    write(folder, {"stage": "active", "tick": None, "slots": {}}, {"stage": "rejected", "tick": 3, "slots": {}})
    assert first_swap(folder) is None
    report = replay_run(folder)
    assert (report.compared, report.differing, report.notes) == (20, 0, [])


def test_a_swapped_run_is_compared_up_to_the_first_commit(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run")
    write(folder, {"stage": "probation", "tick": COMMIT, "slots": {}}, {"stage": "probation", "tick": 17, "slots": {}})
    report = replay_run(folder)
    assert (report.compared, report.differing) == (COMMIT, 0)
    assert f"tick {COMMIT}" in report.notes[0]


def test_a_resumed_run_is_compared_from_its_own_beginning(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run")
    write(folder, {"stage": "probation", "tick": 3, "slots": {}}, {"event": "resumed", "slots": {}, "own": True})
    assert first_swap(folder) is None
    write(folder, {"event": "resumed", "slots": {}, "own": False})
    report = replay_run(folder)
    assert (report.compared, report.filtered, report.differing) == (0, 20, 0)
