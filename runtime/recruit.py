"""A recruit: a worker process as its host sees it, from its start until it is warm.

What comes back from it is data: reports on a pipe are parsed as JSON, bounded and checked, and the hashes of what it
loaded are taken from the report that it sends before anything of the guest has run.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime import config
from runtime.compiled import cache_folder
from runtime.errors import SurefootError
from runtime.mailbox import Layout, Mailbox
from runtime.sandbox import Child, Level, Limits, spawn
from runtime.versions import Version
from runtime.worker import WorkerSpec

STAGES = ("start", "load", "compile", "warm-up", "ready")
MAX_REPORTS = 65_536
"""Bytes that a worker may report in its life."""


class GuestFailed(SurefootError):
    """A guest ended, fell silent, failed or answered nonsense; `stage` is where in its life, "run" once it is ready."""

    def __init__(self, reason: str, stage: str = "run") -> None:
        """Say what happened, and when."""
        super().__init__(reason)
        self.stage = stage


class Recruit:
    """A worker on its way, and then at work.

    Attributes:
        box: Its mailbox.
        child: Its process.
        level: Its sandbox, once it is locked.
        loaded: Slot -> hash of what it received.
        stage: One of `STAGES`: what it is at.
        described: Where the fields of its state stand (`runtime.carry.describe`), in its own words.
        begun: When it was started [s].
    """

    def __init__(
        self, spec: WorkerSpec, versions: Mapping[str, Version], limits: Limits, layout: Layout, *,
        before: Mapping[str, Any] | None = None, module: str = "runtime.locked",
    ) -> None:  # fmt: skip
        """Starts the process.

        Args:
            spec: What it is told.
            versions: A version for every slot of the stack; it reads no layer's file.
            limits: What it may use.
            layout: Of its mailbox.
            before: `described` of the worker whose state it is to take over.
            module: The worker program.

        Raises:
            SurefootError: The machine offers less than the sandbox that `limits` asks for, or starts no process.
            OSError: It has no room for what the worker needs; nothing stays open.
        """
        self.level: Level | None = None
        self.loaded: dict[str, str] = {}
        self.stage = STAGES[0]
        self.described: dict[str, Any] = {}
        self.begun = time.monotonic()
        self._problem: str | None = None
        self._received = bytearray()
        self._reported = 0
        self._expected = {slot: version.hash for slot, version in versions.items()}
        texts = {slot: version.to_bytes().decode() for slot, version in versions.items()}
        readable = (*limits.readable, *_rule_files(spec.stack["document"].get("rules")))
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self.box = Mailbox.create(layout)
            ours.callback(self.box.close)
            sources = _file_of(json.dumps({"versions": texts, "before": before}).encode())
            theirs.callback(os.close, sources)
            self._reports, reports = os.pipe()
            ours.callback(os.close, self._reports)
            theirs.callback(os.close, reports)
            os.set_blocking(self._reports, False)
            told = replace(spec, descriptors=self.box.descriptors, layout=layout.key, sources=sources, reports=reports)
            self.child: Child = spawn(
                told.command(module), [*self.box.descriptors, sources, reports],
                replace(limits, readable=(*readable, str(cache_folder()))), None, _cache_environment(),
            )  # fmt: skip
            ours.pop_all()  # what is ours stays open

    @property
    def ready(self) -> bool:
        """Whether it is warm: call `poll` first."""
        return self.stage == STAGES[-1]

    def poll(self) -> None:
        """Takes note of its reports.

        Raises:
            GuestFailed: It said that it failed, it ended, it reports nonsense, or loaded something else.
        """
        if self._reports >= 0:
            self._read()
        if self.box.ready:
            self.stage = STAGES[-1]
        if self._problem is not None:
            raise GuestFailed(self._problem, self.stage)
        if self.child.returncode is not None:
            raise GuestFailed(self.last_words(), self.stage)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._reports, 4096)
            except BlockingIOError:
                return
            self._reported += len(data)
            flooded = self._reported > MAX_REPORTS
            if flooded:
                self._problem = self._problem or f"it reports more than {MAX_REPORTS} bytes"
            if not data or flooded:
                os.close(self._reports)
                self._reports = -1
                return
            self._received += data
            *lines, rest = bytes(self._received).split(b"\n")
            del self._received[: len(self._received) - len(rest)]
            for line in lines:
                self._note(line)

    def _note(self, line: bytes) -> None:
        try:
            report = json.loads(line)
            if "level" in report:
                self.level = Level(report["level"])
            elif "loaded" in report and not self.loaded:
                self.loaded = {str(slot): str(version) for slot, version in report["loaded"].items()}
                if self.loaded != self._expected:
                    self._problem = "it received other versions than it was sent"
            elif "state" in report:
                fields = {str(name): place for name, place in report["state"]["fields"].items()}
                self.described = {"key": int(report["state"]["key"]), "fields": fields}
            elif report.get("stage") in STAGES:
                self.stage = report["stage"]
            elif "error" in report:
                self._problem = str(report["error"])[:2000]
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            self._problem = f"it reports nonsense: {line[:80]!r}"

    def last_words(self) -> str:
        """Why it ended: its return code and the last line that it printed."""
        status = self.child.returncode or 0
        how = f"killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
        line = self.last_line()
        return f"{how}: {line}" if line else how

    def last_line(self) -> str:
        """The last line that it printed: the end of a traceback, where there was one."""
        lines = self.child.printed().strip().splitlines()
        return lines[-1][:300] if lines else ""

    def close(self) -> None:
        """Kills it, if it lives, and closes what was open; the guard must not look at its mailbox any more."""
        self.child.kill()
        if self._reports >= 0:
            os.close(self._reports)
            self._reports = -1
        self.box.close()


def _file_of(data: bytes) -> int:
    descriptor = os.memfd_create("surefoot-versions", os.MFD_CLOEXEC)
    os.pwrite(descriptor, data, 0)
    return descriptor


def _rule_files(rules: object) -> tuple[str, ...]:
    """What a planner needs to read in order to plan within the limits; the files of a gate stay closed."""
    own = (str(Path(rules).resolve()),) if isinstance(rules, str) and rules.endswith((".yaml", ".yml")) else ()
    return (str(config.CONFIGS / "rules"), *own)


def _cache_environment() -> dict[str, str]:
    """Where the trusted core's machine code is; a child has nothing else of the host's environment."""
    return {name: os.environ[name] for name in ("XDG_CACHE_HOME", "HOME") if name in os.environ}
