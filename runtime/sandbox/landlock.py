"""Landlock through ctypes: the process reads the listed files, and neither reads nor changes any other.

See linux/Documentation/userspace-api/landlock.rst. The kernel forgets nothing here: a ruleset can only be narrowed.
"""

import ctypes
import importlib.util
import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of file rights by version of the interface; 16 from version 5 on."""
_NET_RIGHTS = 0b11  # bind and connect of TCP, from version 4
_SCOPES = 0b11  # abstract Unix sockets and signals, from version 6

PACKAGES = ("numpy", "numpy.libs", "scipy", "scipy.libs", "numba", "llvmlite", "mujoco", "yaml")
"""Packages whose modules load more of themselves long after their import."""

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """Version of Landlock's interface in this kernel; 0 where there is none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def library_paths() -> list[Path]:
    """The standard library and `PACKAGES`; never the folder of all packages, which may hold the project itself."""
    paths = []
    for name in ("stdlib", "platstdlib"):
        folder = Path(sysconfig.get_path(name)).resolve()
        if folder.is_dir():
            paths += [p for p in folder.iterdir() if p.name not in ("site-packages", "dist-packages", "__pycache__")]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name) if "." not in name else None
        folder = Path(spec.origin).parent if spec and spec.origin else Path(sysconfig.get_path("platlib")) / name
        paths.append(folder.resolve())
    return [*paths, Path("/dev/urandom"), Path("/sys/devices/system/cpu/online")]


def restrict(readable: Iterable[Path]) -> None:
    """Denies the calling thread, and those it will create, every file but those beneath `readable`, which it may read.

    `prctl(PR_SET_NO_NEW_PRIVS)` comes first. Paths that do not exist are left out.

    Raises:
        OSError: The kernel refuses.
    """
    version = abi()
    attr = _RulesetAttr(
        fs=(1 << _FS_BITS.get(version, 16)) - 1,
        net=_NET_RIGHTS if version >= 4 else 0,
        scoped=_SCOPES if version >= 6 else 0,
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, ctypes.byref(attr), ctypes.c_size_t(size), 0))
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: Path) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        rule = _PathBeneathAttr(allowed=rights, parent_fd=parent)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(parent)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result
