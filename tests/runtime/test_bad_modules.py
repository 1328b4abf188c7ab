"""The battery in tests/bad_modules: what the static check and the sandboxed load must stop, they stop."""

import json
import os
import sys
from pathlib import Path

import pytest

from controllers import layer
from runtime.sandbox import Level, Limits, available_level, spawn
from runtime.static_check import check

BATTERY = sorted((Path(__file__).parents[1] / "bad_modules").glob("*.py"))
PROBE = Path(__file__).with_name("sandbox_probe.py")
STAGES = ("static", "load", "compile", "smoke", "probation")
full = pytest.mark.skipif(available_level() < Level.FULL, reason="this kernel offers no Landlock or seccomp")


def header(path):
    """The keys in the first lines of a bad module."""
    lines = path.read_text().splitlines()[:6]
    return dict(line[2:].split(": ", 1) for line in lines if line.startswith("# ") and ": " in line)


def those(**wanted):
    """Bad modules by their header, and their names."""
    chosen = [p for p in BATTERY if all(header(p).get(key) in values for key, values in wanted.items())]
    return {"argvalues": chosen, "ids": [p.stem for p in chosen]}


def load_in_sandbox(paths, deadline=30.0):
    """Loads modules one after another in one locked child; returns it, and what became of each."""
    sources = {path.stem: path.read_text() for path in paths}
    guest = f"""
from pathlib import Path
from controllers import layer
from runtime import config
from runtime.errors import SurefootError
import numpy as np
SOURCES = {sources!r}
AXES = {{"leg": 4, "segment": 2}}
def attempt(name):
    try:
        module = layer.check_module(name, Path(name), SOURCES[name])
        record = np.zeros(1, module.dtype(module.params, AXES))
        layer.read_params(module, config.Section({{}}, name), AXES, record)
        return "loads"
    except SurefootError as error:
        return str(error)
acts = {{name: (lambda name=name: attempt(name)) for name in SOURCES}}
"""
    source_read, source_write = os.pipe()
    answer_read, answer_write = os.pipe()
    argv = [sys.executable, "-I", str(PROBE), str(source_read), str(answer_write), "controllers.layer"]
    with spawn(argv, [source_read, answer_write], Limits(), deadline) as child:
        os.close(source_read)
        os.close(answer_write)
        with open(source_write, "wb") as pipe:
            pipe.write(guest.encode())
        with open(answer_read) as pipe:
            answers = {k: v for line in pipe for k, v in json.loads(line).items()}
        child.wait()
    return child, answers


def test_every_module_says_where_it_ends():
    for path in BATTERY:
        assert header(path)["ends"] in STAGES, path.name
        assert header(path)["why"], path.name
    assert len(BATTERY) >= 30


@pytest.mark.parametrize("path", **those(ends=["static"]))
def test_the_static_check_refuses(path):
    findings = check(path.read_text()).findings
    assert header(path)["why"] in " | ".join(map(str, findings))
    assert all(f.remedy for f in findings)


@pytest.mark.parametrize("path", **those(ends=STAGES[1:]))
def test_the_static_check_leaves_to_later_stages(path):
    assert check(path.read_text()).findings == ()


@pytest.fixture(scope="module")
def outcomes():
    """All modules that end by themselves, loaded without the static check."""
    kinds = ["PermissionError", "MemoryError", "ZeroDivisionError", "SystemExit", "TypeError", "loads"]
    paths = those(unchecked=kinds)["argvalues"] + those(ends=["load"], unchecked=[None])["argvalues"]
    child, answers = load_in_sandbox(paths)
    assert child.returncode == 0, child.printed()
    return answers


@full
@pytest.mark.parametrize(
    "path",
    **those(unchecked=["PermissionError", "MemoryError", "ZeroDivisionError", "SystemExit", "TypeError", "loads"]),
)
def test_the_sandbox_holds_without_the_static_check(outcomes, path):
    assert header(path)["unchecked"] in outcomes[path.stem]
    assert not Path("/tmp/surefoot-bad-module").exists()


@full
@pytest.mark.parametrize(
    "path", **those(ends=["load"], unchecked=[None, "MemoryError", "ZeroDivisionError", "TypeError"])
)
def test_the_load_refuses(outcomes, path):
    assert header(path)["why"] in outcomes[path.stem]


@full
@pytest.mark.parametrize("path", **those(unchecked=["deadline"]))
def test_the_deadline_ends_a_load_that_hangs(path):
    child, answers = load_in_sandbox([path], deadline=2.0)
    assert child.overdue
    assert path.stem not in answers


@full
@pytest.mark.parametrize("path", **those(unchecked=["contained"]))
def test_what_it_breaks_is_its_own(path):
    param, modules = layer.param, dict(sys.modules)
    load_in_sandbox([path])
    assert layer.param is param
    assert modules.items() <= sys.modules.items()
