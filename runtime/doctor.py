"""What this machine grants to a robot's loop, what it does not, and what to do about it.

What can be tried is tried, in child processes, so that the answer is the kernel's and nothing sticks to the caller.
"""

from __future__ import annotations

import importlib.metadata
import json as json_module
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.compiled import cache_folder
from runtime.errors import SurefootError
from runtime.sandbox import Level, Limits, landlock, seccomp, spawn

PATIENCE = 60.0
"""Longest that one trial may take [s]; the first import of MuJoCo on a cold disk takes several."""


@dataclass(frozen=True)
class Check:
    """One thing that a run may need."""

    name: str
    ok: bool
    found: str
    """What the machine says."""
    without: str
    """What it means for a run if this is missing."""
    remedy: str
    """What grants it."""


def examine() -> list[Check]:
    """Tries everything; takes about two seconds."""
    granted = _ask(
        "import json; from runtime import realtime as r; "
        "print(json.dumps([r.fifo(r.GUARD_PRIORITY), r.least_timer_slack(), r.lock_memory(), "
        "r.cores_awake().__enter__()]))"
    )
    reasons = json_module.loads(granted) if granted else [["the trial failed"]] * 4
    return [*_real_time(*reasons), *_sandbox(), *_libraries(), _cache(cache_folder()), _gl()]


def _real_time(fifo: list[str], slack: list[str], memory: list[str], awake: list[str]) -> list[Check]:
    cores = len(os.sched_getaffinity(0))
    throttle = _read("/proc/sys/kernel/sched_rt_runtime_us")
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return [
        Check(
            "real-time priority", not fifo, fifo[0] if fifo else "SCHED_FIFO granted",
            "ticks are late by milliseconds when the machine is busy; runs say `degraded`",
            "add '@realtime - rtprio 90' to /etc/security/limits.conf, or in a container --cap-add SYS_NICE",
        ),
        Check(
            "memory lock", not memory, memory[0] if memory else "mlockall granted",
            "a page fault can make a tick late",
            "add '@realtime - memlock unlimited' to /etc/security/limits.conf, or --cap-add IPC_LOCK",
        ),
        Check(
            "timer slack", not slack, slack[0] if slack else "1 ns granted",
            "loops without real-time priority wake about 50 us late",
            "allow prctl(PR_SET_TIMERSLACK) in the container's seccomp profile",
        ),
        Check(
            "idle cores", not awake, awake[0] if awake else "kept awake while a robot runs",
            "ticks wake late, most of all in a virtual machine, whose host takes sleeping cores away",
            "chmod o+w /dev/cpu_dma_latency, or a udev rule; in a container --device /dev/cpu_dma_latency",
        ),
        Check(
            "cores", cores >= 2, f"{cores} usable of {os.cpu_count()}",
            "loop and planner share one core: budgets in milliseconds are not met",
            "give the process two cores or more (taskset, --cpus, cgroup cpuset)",
        ),
        Check(
            "real-time throttling", throttle in ("", "-1") or int(throttle) >= 500_000,
            f"sched_rt_runtime_us {throttle or 'unknown'}",
            "the kernel stops a real-time loop that computes for longer",
            "sysctl -w kernel.sched_rt_runtime_us=950000",
        ),
        Check(
            "frequency", governor in ("", "performance"), f"governor {governor or 'not told (a virtual machine?)'}",
            "the clock of the cores follows the load; the first ticks after a pause are slow",
            "cpupower frequency-set -g performance",
        ),
    ]  # fmt: skip


def _sandbox() -> list[Check]:
    abi = landlock.abi()
    level = _reached_level()
    return [
        Check(
            "Landlock", abi >= 1, f"ABI {abi}" if abi else "not in this kernel",
            "foreign code could read files; it is refused unless --sandbox process allows it",
            "Linux 5.13 or later, booted with lsm=landlock,... and allowed by the container's seccomp profile",
        ),
        Check(
            "seccomp", seccomp.supported(), f"filters on {platform.machine()}",
            "foreign code could use sockets and start programs; it is refused unless --sandbox process allows it",
            "an x86-64 kernel with CONFIG_SECCOMP_FILTER",
        ),
        Check(
            "sandbox", level == str(Level.FULL), f"a trial guest reached: {level}",
            "candidates from agents or other people are refused",
            "see Landlock and seccomp above; --sandbox process runs foreign code with less",
        ),
    ]  # fmt: skip


def _reached_level() -> str:
    """The level that a child really reached, with a file that it really could not open."""
    program = (
        "import sys; from runtime.sandbox import Limits, lock_down\n"
        "level = lock_down(Limits.from_json(sys.argv[-1]))\n"
        "try:\n    open('/etc/passwd'); print('none: it read a file')\n"
        "except PermissionError:\n    print(level)\n"
    )
    try:
        with spawn([sys.executable, "-I", "-c", program], [], Limits(), PATIENCE) as child:
            child.wait()
            return child.printed().strip() or "none: it did not start"
    except SurefootError:
        return str(Level.PROCESS)


def _libraries() -> list[Check]:
    mujoco, envpool = _version("mujoco"), _version("envpool")
    agents = [name for name in ("openai", "mcp") if _version(name) == ""]
    return [
        Check(
            "MuJoCo", mujoco != "" and int(mujoco.split(".")[0]) >= 4, mujoco or "not installed",
            "nothing runs", "pip install 'mujoco>=4.0,<5'",
        ),
        Check(
            "Numba", _version("numba") != "", _version("numba") or "not installed",
            "nothing runs", "pip install 'numba>=0.63'",
        ),
        Check(
            "EnvPool", envpool != "", envpool or "not installed",
            "no scores on `--plant envpool`; everything else runs", "pip install 'surefoot[envpool]'",
        ),
        Check(
            "agents", not agents, "openai and mcp" if not agents else f"{' and '.join(agents)} not installed",
            "no agent bridge; everything else runs", "pip install 'surefoot[agents]'",
        ),
    ]  # fmt: skip


def _cache(folder: Path) -> Check:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    writable = os.access(existing, os.W_OK | os.X_OK)
    return Check(
        "compiled-code cache", writable, f"{folder} {'is writable' if writable else 'cannot be written'}",
        "every start compiles its stack and planner again, several seconds",
        "make the folder writable, or set XDG_CACHE_HOME to one that is",
    )  # fmt: skip


def _gl() -> Check:
    """The first OpenGL back end with which MuJoCo makes a context, each tried in a process of its own."""
    program = "import mujoco; mujoco.GLContext(64, 64).make_current(); print('ok')"
    found = next((gl for gl in ("egl", "osmesa") if _ask(program, {"MUJOCO_GL": gl}) == "ok"), "")
    return Check(
        "video", found != "", f"MUJOCO_GL={found} works" if found else "neither EGL nor OSMesa makes a context",
        "failures and reports come without a video",
        "apt-get install libegl1 libgl1-mesa-dri (software), or a GPU driver with EGL",
    )  # fmt: skip


def _ask(program: str, environment: dict[str, str] | None = None) -> str:
    """The last line that a Python program prints, "" if it fails."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True, text=True, timeout=PATIENCE, env=dict(os.environ) | (environment or {}),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    printed = answer.stdout.strip().splitlines()
    return printed[-1] if answer.returncode == 0 and printed else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def document(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks for scripts: what is granted, what is missing, and what to do."""
    return {
        "ok": all(c.ok for c in checks),
        "granted": [c.name for c in checks if c.ok],
        "missing": [c.name for c in checks if not c.ok],
        "todo": {c.name: c.remedy for c in checks if not c.ok},
        "checks": [asdict(c) for c in checks],
        "machine": {"kernel": platform.release(), "python": platform.python_version(), "cores": os.cpu_count()},
    }


def lines(checks: Sequence[Check]) -> list[str]:
    """The checks for people: one line each, and two more for what is missing."""
    width = max(len(c.name) for c in checks)
    text = []
    for check in checks:
        text.append(f"{'ok     ' if check.ok else 'MISSING'}  {check.name:<{width}}  {check.found}")
        if not check.ok:
            text += [f"{'':9}{'':{width}}  without it: {check.without}", f"{'':9}{'':{width}}  do: {check.remedy}"]
    missing = sum(not c.ok for c in checks)
    return [*text, "", "Everything is granted." if not missing else f"{missing} of {len(checks)} missing; runs say so."]


def doctor(json: bool) -> str:
    """The report as `surefoot doctor` prints it."""
    checks = examine()
    return json_module.dumps(document(checks), indent=2) if json else "\n".join(lines(checks))
