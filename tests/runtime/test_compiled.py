"""The core's cache is keyed by everything that is compiled into it."""

import os
from pathlib import Path

import pytest

from runtime import compiled


def test_every_module_with_compiled_code_is_part_of_the_key() -> None:
    root = Path(compiled.__file__).parents[1]
    for module in (root / "runtime").glob("*.py"):
        if "\n@compiled\n" in module.read_text():
            assert module.stem in compiled._SOURCES["runtime"]


def test_every_module_of_the_key_exists() -> None:
    root = Path(compiled.__file__).parents[1]
    for folder, modules in compiled._SOURCES.items():
        for module in modules:
            assert (root / folder / f"{module}.py").is_file()


def test_only_code_that_nobody_loaded_for_long_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("surefoot_old", "surefoot_used", "surefoot_new", "core-old", "somebody_elses")
    for name in names:
        folder = tmp_path / "surefoot" / name
        folder.mkdir(parents=True)
        (folder / "code.nbc").write_text("x")
        if name != "surefoot_new":
            os.utime(folder, (1, 1))
    compiled.mark_used(tmp_path / "surefoot" / "surefoot_used")
    compiled.prune()
    assert sorted(os.listdir(tmp_path / "surefoot")) == ["somebody_elses", "surefoot_new", "surefoot_used"]
