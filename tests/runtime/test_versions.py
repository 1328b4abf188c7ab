"""Versions have one identity everywhere, live side by side, and are refused when their files change."""

import re
import sys
import traceback
from itertools import pairwise

import numpy as np
import pytest

from controllers import layer as layers
from runtime.errors import SurefootError
from runtime.versions import Version, VersionStore, canonical, make_version

SOURCE = '''"""Joint: a test layer."""

from dataclasses import dataclass

from controllers.layer import param, state

GAIN = 1.0


@dataclass(frozen=True)
class Params:
    """One gain."""

    kp: float = param(1.0, unit="1/rad", range=(0, 100), doc="Control per position error.")


@dataclass
class State:
    """It remembers nothing."""


def update(p, s, x, c):
    """Fail, to show where."""
    raise ValueError(GAIN)
'''


@pytest.fixture
def store(tmp_path):
    return VersionStore(tmp_path / "versions")


def test_the_hash_covers_source_parameters_and_interface():
    version = make_version(SOURCE, {"kp": 2.0})
    others = [
        make_version(SOURCE + "\n", {"kp": 2.0}),
        make_version(SOURCE, {"kp": np.nextafter(2.0, 3.0)}),
        Version(version.source, version.params, layers.INTERFACE + 1),
    ]
    assert len({version.hash, *(v.hash for v in others)}) == 4
    assert re.fullmatch("[0-9a-f]{64}", version.hash)


def test_the_same_values_are_the_same_version_however_they_are_written():
    assert canonical({"b": np.array([1, 2.5]), "a": np.float64(3)}) == '{"a":3.0,"b":[1.0,2.5]}'
    assert canonical({"a": 3, "b": (1.0, 2.5)}) == '{"a":3.0,"b":[1.0,2.5]}'


@pytest.mark.parametrize("value", [float("nan"), np.inf, True, None, {"a": 1}, [1.0, [np.nan]]])
def test_values_that_are_no_finite_numbers_are_refused(value):
    with pytest.raises(SurefootError, match=r"limb\.kp(\[1\]\[0\])?: expected finite numbers, found"):
        canonical({"kp": value}, "limb")


def test_a_version_survives_the_store_and_the_wire(store):
    version = make_version(SOURCE, {"kp": 0.1 + 0.2})
    store.submit(version)
    store.submit(version)
    assert store.get(version.hash) == version
    assert store.get(version.hash[:8]) == version
    assert Version.from_bytes(version.to_bytes()).hash == version.hash
    assert version.values == {"kp": 0.1 + 0.2}
    assert store.hashes() == [version.hash]


@pytest.mark.parametrize("name", ["layer.py", "params.json", "interface"])
def test_a_file_changed_on_disk_is_refused(store, name):
    folder = store.submit(make_version(SOURCE, {}))
    file = folder / name
    file.write_text(file.read_text() + " ")
    if name == "interface":
        file.write_text("2")
    with pytest.raises(SurefootError, match="changed on disk"):
        store.get(folder.name)
    with pytest.raises(SurefootError, match="changed on disk"):
        store.submit(make_version(SOURCE, {}))


def test_a_missing_file_is_refused(store):
    folder = store.submit(make_version(SOURCE, {}))
    (folder / "params.json").unlink()
    with pytest.raises(SurefootError, match="cannot be read"):
        store.get(folder.name)


def test_another_interface_is_refused(store):
    version = Version(SOURCE, "{}", layers.INTERFACE + 1)
    folder = store.folder / version.hash
    folder.mkdir(parents=True)
    for name, text in (("layer.py", SOURCE), ("params.json", "{}"), ("interface", str(version.interface))):
        (folder / name).write_text(text)
    with pytest.raises(SurefootError, match=f"interface {layers.INTERFACE + 1}, this runtime has {layers.INTERFACE}"):
        store.get(version.hash)


def test_unknown_and_ambiguous_names(store):
    with pytest.raises(SurefootError, match="not in"):
        store.get("abc")
    hashes = [make_version(SOURCE + "#" * n, {}) for n in range(17)]
    for version in hashes:
        store.submit(version)
    first = sorted(v.hash[0] for v in hashes)
    twice = next(a for a, b in pairwise(first) if a == b)
    with pytest.raises(SurefootError, match="versions begin so"):
        store.get(twice)
    with pytest.raises(SurefootError, match="not in"):
        store.get("")


def test_two_versions_live_side_by_side():
    one, two = make_version(SOURCE, {}), make_version(SOURCE.replace("GAIN = 1.0", "GAIN = 2.0"), {})
    modules = [v.load() for v in (one, two)]
    assert [m.name for m in modules] == [one.hash[:12], two.hash[:12]]
    assert modules[0].source != modules[1].source


def test_tracebacks_show_the_version_and_its_source():
    version = make_version(SOURCE.replace("GAIN = 1.0", "GAIN = 3.0"), {})
    module = version.load()
    loaded = [m for name, m in sys.modules.items() if name.startswith("surefoot_layer_")]
    namespace = next(m for m in loaded if m.__file__ == str(module.path))
    with pytest.raises(ValueError) as failure:
        namespace.update(None, None, None, None)
    text = "".join(traceback.format_exception(failure.value))
    assert version.hash in text
    assert "raise ValueError(GAIN)" in text


def test_a_full_disk_leaves_no_half_version(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runtime.versions.os.rename", full)
    with pytest.raises(SurefootError, match="No space left"):
        store.submit(make_version(SOURCE, {}))
    assert list(store.folder.iterdir()) == []
