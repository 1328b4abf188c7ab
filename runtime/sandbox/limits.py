"""How far a guest may go: the level of its sandbox and its resource limits."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import asdict, dataclass
from enum import IntEnum

MEBIBYTE = 1 << 20


class Level(IntEnum):
    """What stands between a guest and the machine; a higher level includes the lower ones."""

    NONE = 0
    """The host's own process."""
    PROCESS = 1
    """A process of its own: resource limits, no environment, no privileges, killed by its deadline."""
    FULL = 2
    """And no files, sockets, processes or signals, by Landlock and seccomp."""

    def __str__(self) -> str:
        """The name on banners, rows and the command line."""
        return ("none", "process", "landlock+seccomp")[self]


@dataclass(frozen=True)
class Limits:
    """What one guest may use. `required` is the level below which it is refused instead of run."""

    required: Level = Level.FULL
    memory: int = 4096 * MEBIBYTE
    """Address space [bytes]; NumPy, Numba and MuJoCo take about 1 GiB of it, each thread 8 to 136 MiB."""
    cpu_seconds: int | None = None
    """Processor time of all threads [s]; None for a worker that lives as long as its run."""
    real_time_seconds: float = 2.0
    """Processor time under SCHED_FIFO without ever blocking [s]: a hung layer must not keep its core for ever."""
    output: int = MEBIBYTE
    """Size of what it prints [bytes]."""
    open_files: int = 64
    threads: int = 64
    """Threads beyond those that the user runs already; the kernel exempts uid 0."""
    readable: tuple[str, ...] = ()
    """Files and folders that it may read, beside the standard library and the packages in `landlock.PACKAGES`."""

    def to_json(self) -> str:
        """The limits as the last argument of a child's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Limits:
        """The limits that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "required": Level(fields["required"]), "readable": tuple(fields["readable"])})


def limit_resources(limits: Limits) -> None:
    """Sets the limits of the calling process, soft and hard; where the hard limit is lower already, it stays."""
    _lower(resource.RLIMIT_AS, limits.memory)
    _lower(resource.RLIMIT_FSIZE, limits.output)
    _lower(resource.RLIMIT_NOFILE, limits.open_files)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NPROC, _tasks_of_user() + limits.threads)
    _lower(resource.RLIMIT_RTTIME, round(limits.real_time_seconds * 1e6))
    if limits.cpu_seconds is not None:
        _lower(resource.RLIMIT_CPU, limits.cpu_seconds)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _tasks_of_user() -> int:
    """Threads that the calling user runs, which is what RLIMIT_NPROC counts."""
    count = 0
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{entry.name}/task"))
        except OSError:
            continue  # it ended, or hides its threads
    return count
