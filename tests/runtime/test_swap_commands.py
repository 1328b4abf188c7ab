"""What a command that waits for a transaction says with its exit code."""

from pathlib import Path
from typing import Any

import pytest
import typer

from runtime.swap_commands import _tell


def status(phase: str) -> dict[str, Any]:
    return {"transaction": "1", "phase": phase, "slots": {"limb": "a" * 64}, "reason": "", "committed": -1,
            "seconds": 0.0}  # fmt: skip


@pytest.mark.parametrize(("wanted", "phases", "code"), [
    (("active",), ["starting", "probation", "active"], 0),
    (("active",), ["starting", "probation", "rolled back"], 1),
    (("active",), ["starting", "rejected"], 1),
    (("rolled back", "starting"), ["starting", "rolled back"], 0),
    (("rolled back", "starting"), ["starting", "rejected"], 1),
    (("rolled back", "rejected"), ["rejected"], 0),
])  # fmt: skip
def test_the_exit_code_says_whether_it_ended_as_it_was_meant_to(
    monkeypatch: pytest.MonkeyPatch, wanted: tuple[str, ...], phases: list[str], code: int
) -> None:
    later = iter(phases[1:])
    monkeypatch.setattr("runtime.swap_client.transaction_status", lambda folder, name: status(next(later)))
    monkeypatch.setattr("runtime.swap_commands.time.sleep", lambda seconds: None)
    with pytest.raises(typer.Exit) as ended:
        _tell(Path("run"), status(phases[0]), wanted, wait=True, json=False)
    assert ended.value.exit_code == code


def test_a_command_that_does_not_wait_succeeds_when_it_was_understood() -> None:
    with pytest.raises(typer.Exit) as ended:
        _tell(Path("run"), status("starting"), ("active",), wait=False, json=True)
    assert ended.value.exit_code == 0
