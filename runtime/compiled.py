"""How the trusted core is compiled: without the GIL, and cached under the hash of all of its sources.

Numba's own cache does not see that a function called from another module was edited, and would run the old one. The
core's machine code is therefore kept in a folder named after everything that it is made from.
"""

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba

_SOURCES = ("runtime", "runtime/plants", "safety")


@lru_cache(maxsize=1)
def core_folder() -> str:
    """Returns the folder of the core's machine code, whose name is the hash of what it is made from."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(p for folder in _SOURCES for p in (root / folder).glob("*.py")):
        digest.update(path.read_bytes())
    for package in ("mujoco", "numba", "llvmlite", "numpy"):
        digest.update(version(package).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(cache / "surefoot" / f"core-{digest.hexdigest()[:24]}")


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a function of the core: no GIL, division by zero gives infinity, machine code kept on disk."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = core_folder()  # read when the function is decorated, not when it is compiled
    try:
        return numba.njit(function, nogil=True, error_model="numpy", cache=True)
    finally:
        numba.config.CACHE_DIR = before
