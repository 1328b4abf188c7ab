"""A run that is resumed: what it recorded before gets a folder of its own, so that each folder holds one recording.

A tape's rows are counted from the first one of its recording, and its seeds are those of the `config.yaml` beside it.
The journal and the versions belong to the run and go on; a row of the journal marks where a new recording begins.
"""

import shutil
from pathlib import Path
from typing import Any

from controllers.stack import Stack
from runtime.errors import SurefootError
from runtime.journal import Journal
from runtime.lifecycle import Lifecycle
from runtime.tapefile import segments
from runtime.versions import stack_versions

MARK = "resumed"
EARLIER = "earlier"


def earlier(folder: Path) -> list[Path]:
    """Returns the folders of what a run recorded before it was resumed, the oldest first."""
    found = (folder / EARLIER).glob(f"{folder.resolve().name}-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def keep_earlier(folder: Path) -> Path | None:
    """Moves tape and results of a run that ended to `earlier/NAME-1`, with copies of its configuration and journal.

    That is a run's folder like any other. A move that was cut short is finished by the next call.

    Returns:
        The folder, or None if nothing was recorded.

    Raises:
        SurefootError: The disk refuses.
    """
    half = folder / EARLIER / "unfinished"
    if not segments(folder) and not half.exists():
        return None
    kept = half.with_name(f"{folder.resolve().name}-{len(earlier(folder)) + 1}")
    try:
        half.mkdir(parents=True, exist_ok=True)
        for path in (folder / "config.yaml", folder / "events.jsonl"):
            if path.exists():
                shutil.copyfile(path, half / path.name)
        for path in (*segments(folder), folder / "results.json"):
            if path.exists():
                path.rename(half / path.name)
        half.rename(kept)
    except OSError as error:
        raise SurefootError(f"{kept}: what was recorded before cannot be moved there: {error.strerror}") from None
    return kept


def mark_resumed(lifecycle: Lifecycle, stack: Stack) -> None:
    """Writes down that a new recording begins, with which versions, and whether those are the stack's own."""
    active = lifecycle.active()
    own = {slot: version.hash for slot, version in stack_versions(stack).items()}
    lifecycle.note(MARK, "goes on with the versions that it trusted last", None, slots=active, own=active == own)


def journal_of_tape(folder: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Returns the mark that the folder's recording begins with, None if it was not resumed; and the rows since."""
    rows = Journal(folder / "events.jsonl").rows()
    marks = [number for number, row in enumerate(rows) if row.get("event") == MARK]
    return (rows[marks[-1]], rows[marks[-1] + 1 :]) if marks else (None, rows)
