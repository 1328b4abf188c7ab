"""Generated code: written once into a folder named by the hash of all that it is made from, compiled, and cached there.

Numba's cache does not see an edited callee: a caller whose own text is unchanged would run the old one. So code is only
ever cached under the hash of everything that it calls.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import sys
import tempfile
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from numba.core import caching

from runtime.compiled import cache_folder, mark_used, prune
from runtime.errors import SurefootError


class Cache(Enum):
    """What a process does with compiled code."""

    KEPT = "written and read"
    READ = "read"
    UNUSED = "neither"


PACKAGES = ("mujoco", "numba", "llvmlite", "numpy")
PACKAGE = "{package}"
"""Stands for the package's own name in the source of a main module, which is hashed before the name is known."""


def fingerprint(*parts: str) -> str:
    """SHA-256 over texts, the trusted code that is compiled in with them, and the versions of the compilers."""
    digest = hashlib.sha256()
    for part in (*parts, *_trusted()):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:24]


@lru_cache(maxsize=1)
def _trusted() -> tuple[str, ...]:
    """What is in every fingerprint; read once, because a locked worker cannot read it later."""
    root = Path(__file__).resolve().parents[1]
    paths = (Path(__file__), root / "runtime" / "native.py", root / "runtime" / "signals.py")
    compilers = (f"{package} {version(package)} python {sys.version_info[:2]}" for package in PACKAGES)
    return (*(path.read_text() for path in paths), *compilers)


def load_generated(package: str, main: str, source: str, layers: dict[str, str], names: dict[str, Any]) -> Any:
    """Write generated sources into the folder of their package, once, and import its main module.

    Args:
        package: Name of the package, which holds the hash of everything else here.
        main: Name of the main module.
        source: Its text; `{package}` in it becomes the package's name.
        layers: Further modules, name -> text, whose functions are compiled so that the main module can call them.
        names: What the main module finds defined besides.
    """
    full = f"{package}.{main}"
    if full in sys.modules:
        return sys.modules[full]
    folder = cache_folder() / package
    known = folder.is_dir() and _cache is not Cache.UNUSED
    if not known and _cache is not Cache.KEPT:
        _import_text(package, "", {}).__path__ = []
        for name, text in layers.items():
            _compile_functions(_import_text(f"{package}.{name}", text, {}))
        return _import_text(full, source.replace(PACKAGE, package).replace("cache=True", "cache=False"), names)
    if not known:
        _write(folder, {"__init__": "", main: source.replace(PACKAGE, package), **layers})
        prune()
    mark_used(folder)
    _import(package, folder / "__init__.py", {}, [str(folder)])
    for name in layers:
        _compile_functions(_import(f"{package}.{name}", folder / f"{name}.py", {}))
    return _import(full, folder / f"{main}.py", names)


_cache = Cache.KEPT


def keep_in_memory(*, read: bool) -> None:
    """From now on this process writes no generated code and no machine code: a locked worker may not.

    Args:
        read: Whether it loads what a trusted process has compiled from the same sources. What a guest brings is never
            among it: it is compiled in locked workers only.
    """
    global _cache
    _cache = Cache.READ if read else Cache.UNUSED
    load = caching.Cache.load_overload

    def look_up(cache: Any, signature: Any, target: Any) -> Any:
        with suppress(OSError):  # what stands elsewhere cannot be read
            return load(cache, signature, target) if read else None
        return None

    # Numba has no switch for either.
    caching.Cache.load_overload = look_up
    caching.Cache.save_overload = lambda cache, signature, data: None
    caching.CacheImpl._locator_classes = [_ReadLocator]


class _ReadLocator(caching.InTreeCacheLocator):  # type: ignore[misc]
    """Finds machine code beside its source, in a folder that cannot be written."""

    def ensure_cache_path(self) -> None:
        """Does not try to write there."""


def _import_text(name: str, source: str, names: dict[str, Any]) -> ModuleType:
    """Import a module that is only a text; tracebacks and compiler errors still show its lines."""
    module = ModuleType(name)
    file = f"{name.replace('.', '/')}.py"
    module.__file__ = file
    vars(module).update(names)
    sys.modules[name] = module
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    try:
        exec(compile(source, file, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    _attach(name, module)
    return module


def _attach(name: str, module: Any) -> None:
    if "." in name:
        parent, _, leaf = name.rpartition(".")
        setattr(sys.modules[parent], leaf, module)


def _write(folder: Path, files: dict[str, str]) -> None:
    """Make the whole folder at once, so that no other process ever sees half of it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            build = Path(scratch) / folder.name
            build.mkdir()
            for name, source in files.items():
                (build / f"{name}.py").write_text(source)
            os.rename(build, folder)
    except OSError as error:
        if not folder.is_dir():  # otherwise another process was first
            raise SurefootError(
                f"{folder.parent}: compiled code cannot be kept there: {error.strerror}; "
                "set XDG_CACHE_HOME to a folder that can be written"
            ) from None


def _import(name: str, path: Path, names: dict[str, Any], search: list[str] | None = None) -> Any:
    spec = spec_from_file_location(name, path, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise SurefootError(f"{path}: cannot be imported")
    module = module_from_spec(spec)
    vars(module).update(names)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _attach(name, module)
    return module


def _compile_functions(module: Any) -> None:
    """Replace a layer's functions by their compiled selves, so that they can call each other."""
    from numba import njit

    for name, value in list(vars(module).items()):
        if callable(value) and getattr(value, "__module__", None) == module.__name__ and not isinstance(value, type):
            setattr(module, name, njit(error_model="numpy")(value))
