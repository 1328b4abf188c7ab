"""Files that survive a crash: a journal of JSON lines that only grows, and files that are replaced as a whole.

A row is finished when `append` returns. A process killed in the middle of one leaves at most a last line without its
end, which readers skip and the next writer cuts off.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from runtime.errors import SurefootError


class Journal:
    """An append-only file of JSON objects, one a line."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made by the first row."""
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other writers out, waiting for the one that is in.

        Raises:
            SurefootError: The lock file beside it cannot be made.
        """
        with exclusive(self.path.with_name(self.path.name + ".lock")):
            yield

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one row to the disk; the caller holds `locked()`.

        Raises:
            SurefootError: The disk refuses; nothing of the row is left in the file.
        """
        line = encode(row) + b"\n"
        new = not self.path.exists()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SurefootError(f"{self.path}: the row is not written: {error.strerror}") from None
        try:
            end = _end_of_last_line(descriptor)
            os.ftruncate(descriptor, end)
            try:
                written = 0
                while written < len(line):
                    written += os.write(descriptor, line[written:])
                os.fsync(descriptor)
            except OSError as error:
                os.ftruncate(descriptor, end)
                raise SurefootError(f"{self.path}: the row is not written: {error.strerror}") from None
        finally:
            os.close(descriptor)
        if new:
            _sync_folder(self.path.parent)

    def rows(self) -> list[dict[str, Any]]:
        """All finished rows.

        Raises:
            SurefootError: The file cannot be read, or a line is no JSON object; the message names it.
        """
        rows = []
        for number, line in enumerate(self.lines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise SurefootError(f"{self.path}:{number}: not a JSON object; was the file edited?")
            rows.append(row)
        return rows

    def lines(self) -> list[bytes]:
        """The finished lines, without their ends.

        Raises:
            SurefootError: The file cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SurefootError(f"{self.path}: cannot be read: {error.strerror}") from None
        return data.split(b"\n")[:-1]


def open_lock(path: Path) -> IO[str]:
    """A lock file, made with its folder where it is not there; it goes with nothing and may stay.

    Raises:
        SurefootError: The disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError as error:
        raise SurefootError(f"{path}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keeps out all others that ask for the same lock file, waiting for the one that is in.

    Raises:
        SurefootError: The file cannot be made.
    """
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def encode(row: Mapping[str, Any]) -> bytes:
    """The line of a row, without its end; NaN and infinities have none (ValueError)."""
    return json.dumps(row, allow_nan=False, ensure_ascii=False).encode()


def replace(path: Path, data: bytes) -> None:
    """Writes a file so that whoever reads it, even after a crash, sees the old content or the new, never a part.

    Raises:
        SurefootError: The disk refuses; the old content stands.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise SurefootError(f"{path}: cannot be written: {error.strerror}") from None


def _end_of_last_line(descriptor: int, block: int = 65_536) -> int:
    """Offset behind the last newline; 0 if there is none."""
    position = os.fstat(descriptor).st_size
    while position > 0:
        start = max(0, position - block)
        found = os.pread(descriptor, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
