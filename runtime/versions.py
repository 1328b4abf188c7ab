"""Versions of layers: a source and its parameters, stored under the hash of both and never edited.

The same bytes give the same version wherever they are: in the store, on the wire to a worker, in the events. A worker
computes the hash of what it received and answers with it, so what was gated, staged and loaded can be compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from controllers import layer as layers
from controllers.stack import Stack, build_stack
from runtime.errors import SurefootError
from runtime.journal import replace

SOURCE_FILE, PARAMS_FILE, INTERFACE_FILE = "layer.py", "params.json", "interface"


@dataclass(frozen=True)
class Version:
    """One version of a layer."""

    source: str
    params: str
    """Parameters that differ from the defaults of `Params`, as canonical JSON."""
    interface: int = layers.INTERFACE

    @cached_property
    def hash(self) -> str:
        """Identity: SHA-256 of interface, source and parameters, 64 hexadecimal digits."""
        digest = hashlib.sha256(f"surefoot layer, interface {self.interface}\n".encode())
        for part in (self.source, self.params):
            digest.update(hashlib.sha256(part.encode()).digest())
        return digest.hexdigest()

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as a mapping, as a stack's configuration has them."""
        return dict(json.loads(self.params))

    def load(self) -> layers.Module:
        """Executes the source and checks its form; only inside a sandbox, unless it ships with the project.

        The module is registered under a name with the hash of its source, beside all others; its file is called by the
        version's hash, and tracebacks show its lines.
        """
        return layers.check_module(self.hash[:12], Path(f"versions/{self.hash}") / SOURCE_FILE, self.source)

    def to_bytes(self) -> bytes:
        """The version on its way to a worker."""
        return json.dumps({"interface": self.interface, "source": self.source, "params": self.params}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Version:
        """The version as a worker received it."""
        return cls(**json.loads(data))


def make_version(source: str, params: Mapping[str, Any], where: str = "params") -> Version:
    """A version of a layer's source and those of its parameters that are not at their defaults."""
    return Version(source, canonical(params, where))


def canonical(params: Mapping[str, Any], where: str = "params") -> str:
    """One text per set of values: sorted keys, shortest digits, arrays as lists, numbers as floats.

    Raises:
        SurefootError: A value is not a finite number, a word, or a nest of them.
    """
    plain = {str(key): _plain(value, f"{where}.{key}") for key, value in params.items()}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def shipped(version: Version) -> bool:
    """Whether a version's source came with the project, whatever its parameters."""
    return version.source in _shipped_sources()


@cache
def _shipped_sources() -> frozenset[str]:
    return frozenset(
        path.read_text() for level in layers.LEVELS for path in Path(layers.__file__).parent.glob(f"{level}/*.py")
    )


def stack_versions(stack: Stack) -> dict[str, Version]:
    """Slot -> version of what a stack runs: each layer's source, and its parameters in their own units."""
    found = {}
    for item in stack.layers:
        record = stack.params[item.slot][0]
        changed = {f.name: _shortest(record[f.name]) for f in item.module.params if _differs(record[f.name], f.default)}
        found[item.slot] = make_version(item.module.source, changed, item.slot)
    return found


def _shortest(value: Any) -> Any:
    """A number where an array holds but one: it fills a parameter of any shape, a later version's too."""
    array = np.asarray(value)
    return array.flat[0] if array.size and (array == array.flat[0]).all() else value


def _differs(value: Any, default: Any) -> bool:
    array = np.asarray(value)
    try:
        return not np.array_equal(array, np.broadcast_to(np.asarray(default, dtype=float), array.shape))
    except (ValueError, TypeError):  # a default in another unit, as words
        return True


def with_versions(document: Mapping[str, Any], versions: Mapping[str, Version]) -> dict[str, Any]:
    """A stack's configuration with the parameters of other versions in its slots; the layers' rates stay."""
    layers_ = {}
    for slot, section in document["layers"].items():
        every = {"every": section["every"]} if "every" in section else {}
        layers_[slot] = {**every, **versions[slot].values} if slot in versions else section
    return {**document, "layers": layers_}


def load_versions(name: str, document: Mapping[str, Any], path: Path, versions: Mapping[str, Version]) -> Stack:
    """A stack whose layers are these versions, which are executed here: inside a sandbox, unless they are trusted.

    Raises:
        SurefootError: A version cannot be loaded, or its parameters do not fit.
    """
    modules = {slot: version.load() for slot, version in versions.items()}
    return build_stack(name, with_versions(document, versions), path, modules)


def _plain(value: object, where: str) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SurefootError(f"{where}: expected finite numbers, found {value!r}")
    return float(value)


class VersionStore:
    """The folder `versions/` of a run store."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made by the first version."""
        self.folder = folder

    def submit(self, version: Version) -> Path:
        """Stores a version, once; its folder appears whole or not at all.

        Raises:
            SurefootError: The disk refuses, or what is stored under this hash has been changed.
        """
        folder = self.folder / version.hash
        if folder.exists():
            self.get(version.hash)
            return folder
        scratch: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.mkdtemp(prefix=".submit-", dir=self.folder)
            for name, text in (
                (SOURCE_FILE, version.source),
                (PARAMS_FILE, version.params),
                (INTERFACE_FILE, str(version.interface)),
            ):
                replace(Path(scratch) / name, text.encode())
            os.rename(scratch, folder)
        except OSError as error:
            if not folder.exists():  # another process may have stored the same version meanwhile
                raise SurefootError(f"{folder}: cannot be written: {error.strerror}") from None
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
        return folder

    def get(self, name: str) -> Version:
        """The version of a hash, or of the beginning of one, compared with its hash as it is read.

        Raises:
            SurefootError: There is none, or more than one, or its files were changed on disk.
        """
        folder = self.folder / self.resolve(name)
        try:
            texts = [(folder / file).read_bytes().decode() for file in (SOURCE_FILE, PARAMS_FILE, INTERFACE_FILE)]
            version = Version(texts[0], texts[1], int(texts[2]))
        except (OSError, ValueError) as error:
            raise SurefootError(f"{folder}: the version cannot be read: {error}; submit it again") from None
        if version.hash != folder.name:
            raise SurefootError(
                f"{folder}: its files were changed on disk: they hash to {version.hash[:12]}; submit them"
            )
        if version.interface != layers.INTERFACE:
            raise SurefootError(
                f"{folder}: written for layer interface {version.interface}, this runtime has {layers.INTERFACE}"
            )
        return version

    def resolve(self, name: str) -> str:
        """The full hash that begins with `name`."""
        found = [h for h in self.hashes() if h.startswith(name)] if name else []
        if len(found) == 1:
            return found[0]
        if found:
            raise SurefootError(f"version {name}: {len(found)} versions begin so; give more digits of the hash")
        raise SurefootError(f"version {name or '(empty)'}: not in {self.folder}; `surefoot versions` lists what is")

    def hashes(self) -> list[str]:
        """Hashes of all stored versions, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if len(p.name) == 64)
