"""`surefoot new layer`: what it writes runs as it is, and it overwrites nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from controllers.layer import LEVELS, read_module
from controllers.scaffold import new_layer
from runtime.errors import SurefootError

ROOT = Path(__file__).resolve().parents[2]


def test_the_written_tests_pass(tmp_path: Path) -> None:
    """All levels in one process, as their author would run them."""
    tests = [str(new_layer(f"my_{level}", level, tmp_path)[1]) for level in LEVELS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"{len(LEVELS)} passed" in done.stdout, done.stdout


@pytest.mark.parametrize("level", LEVELS)
def test_the_written_files_are_in_the_house_style(tmp_path: Path, level: str) -> None:
    files = new_layer("my_layer", level, tmp_path)
    assert [path.name for path in files] == ["my_layer.py", "test_my_layer.py"]
    assert [field.name for field in read_module(files[0]).params] == ["gain", "rate"]
    assert all(len(line) <= 120 for path in files for line in path.read_text().splitlines())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("precious")
    with pytest.raises(SurefootError, match=r"test_mine.py: exists already"):
        new_layer("mine", "limb", tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["", "my gait", "2legs", "MyGait", "class", "../up", "größe"])
def test_a_name_that_cannot_be_a_module_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SurefootError, match="cannot name a layer"):
        new_layer(name, "limb", tmp_path)


def test_an_unknown_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SurefootError, match="did you mean 'limb'"):
        new_layer("mine", "limp", tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SurefootError, match="file/sub: cannot be written: Not a directory"):
        new_layer("mine", "limb", tmp_path / "file" / "sub")
