"""How the trusted core is compiled: without the GIL, and cached under the hash of all of its sources.

Numba's own cache does not see that a function called from another module was edited, and would run the old one. The
core's machine code is therefore kept in a folder named after everything that it is made from.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba

# Every module that holds compiled code of the core, or constants that it takes in.
_SOURCES = {
    "runtime": ("account", "clock", "compiled", "exchange", "guard", "guard_state", "libc", "mailbox", "native",
                "records", "seats", "serve", "signals", "tape"),
    "runtime/plants": ("native",),
    "safety": ("evaluator", "fallbacks", "kernel", "limits", "model", "tape"),
}  # fmt: skip


UNUSED = 14 * 86400.0  # [s] after which compiled code that nobody loaded is removed


def cache_folder() -> Path:
    """Where compiled code is kept: `surefoot` in the user's cache folder (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "surefoot"


@lru_cache(maxsize=1)
def core_folder() -> str:
    """Returns the folder of the core's machine code, whose name is the hash of what it is made from."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder, modules in _SOURCES.items():
        for module in modules:
            digest.update((root / folder / f"{module}.py").read_bytes())
    for package in ("mujoco", "numba", "llvmlite", "numpy"):
        digest.update(version(package).encode())
    core = cache_folder() / f"core-{digest.hexdigest()[:24]}"
    mark_used(core)
    return str(core)


def mark_used(folder: Path) -> None:
    """Notes that compiled code is in use, which keeps `prune` away from it."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def prune(unused: float = UNUSED) -> None:
    """Removes compiled code that was not loaded for `unused` [s].

    A folder is moved away whole before it is taken apart, so that a process which looks for it finds all of it or
    nothing, and compiles again.
    """
    limit = time.time() - unused
    for folder in (*cache_folder().glob("surefoot_*"), *cache_folder().glob("core-*")):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < limit:
                scratch = tempfile.mkdtemp(dir=cache_folder(), prefix=".old-")
                os.rename(folder, scratch)
                shutil.rmtree(scratch, ignore_errors=True)


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a function of the core: no GIL, division by zero gives infinity, machine code kept on disk."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = core_folder()  # read when the function is decorated, not when it is compiled
    try:
        return numba.njit(function, nogil=True, error_model="numpy", cache=True)
    finally:
        numba.config.CACHE_DIR = before
