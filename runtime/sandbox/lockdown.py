"""The child's side: give up everything but computing, in one call, before the guest's source is read."""

import ctypes
import os
import signal
from pathlib import Path

from runtime.errors import SurefootError
from runtime.sandbox import landlock, seccomp
from runtime.sandbox.limits import Level, Limits, limit_resources

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_IPC_LOCK = 1 << 14

_libc = ctypes.CDLL(None, use_errno=True)


def available_level() -> Level:
    """The highest level that this machine offers to a child process."""
    return Level.FULL if landlock.abi() >= 1 and seccomp.supported() else Level.PROCESS


def lock_down(limits: Limits) -> Level:
    """Takes from the calling process all that a guest must not have, for good.

    Call it while the process has one thread, since Landlock binds a thread and those that it creates later. Real-time
    priority and locked memory are asked for before: the privileges for them go with the rest.

    Returns:
        The level reached, at least `limits.required`; report it to the host before asking for the source.

    Raises:
        SurefootError: The machine offers less than `limits.required`, or there are other threads.
    """
    level = available_level()
    check_level(level, limits)
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise SurefootError(f"sandbox: {threads} threads are running, expected 1; import libraries single-threaded")
    paths = [*landlock.library_paths(), *map(Path, limits.readable)] if level is Level.FULL else []
    limit_resources(limits)
    try:
        _drop_privileges()
        if level is Level.FULL:
            landlock.restrict(paths)
            seccomp.restrict()
    except OSError as error:
        if limits.required is Level.FULL:
            raise SurefootError(f"sandbox: {error.strerror}; run `surefoot doctor` to see what is missing") from None
        return Level.PROCESS
    return level


def check_level(level: Level, limits: Limits) -> None:
    """Refuses a level below the required one."""
    if level < limits.required:
        raise SurefootError(
            f"sandbox: this machine offers {level}, foreign code needs {limits.required}; "
            f"see `surefoot doctor`, or pass --sandbox {level} to run it all the same"
        )


def _drop_privileges() -> None:
    """Gains nothing any more, and keeps of its privileges the one to lock memory; it dies with its watching thread.

    A process that called mlockall(MCL_FUTURE) on the strength of CAP_IPC_LOCK could not even grow its stack without.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for capabilities from 32 on
    _checked("capget", _libc.capget(header, held))
    kept = held[0] & _CAP_IPC_LOCK
    _checked("capset", _libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept)))
    _checked("no_new_privs", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked("parent death signal", _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0))


def _checked(name: str, result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
