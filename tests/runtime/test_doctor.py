"""The doctor says what is missing, what that means and what to do, and tries things for real."""

import json
import os
from pathlib import Path

import pytest

from runtime import doctor
from runtime.doctor import Check
from runtime.sandbox import Level, available_level

GOOD = Check("cores", True, "2 usable of 2", "one core", "give it two")
BAD = Check("video", False, "no context", "no video", "install libegl1")


@pytest.fixture(scope="module")
def checks():
    return {check.name: check for check in doctor.examine()}


def test_every_check_says_what_to_do(checks):
    assert {"real-time priority", "memory lock", "Landlock", "seccomp", "sandbox", "video", "EnvPool"} <= set(checks)
    assert {"cores", "MuJoCo", "Numba", "compiled-code cache", "timer slack"} <= set(checks)
    assert all(check.found and check.without and check.remedy for check in checks.values())


def test_the_sandbox_is_tried(checks):
    assert checks["sandbox"].ok == (available_level() is Level.FULL)


def test_examining_changes_nothing_here(checks):
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert Path("/etc/passwd").read_text()
    assert "VmLck:\t       0 kB" in Path("/proc/self/status").read_text()


def test_without_landlock_the_sandbox_is_missing(monkeypatch):
    monkeypatch.setattr("runtime.sandbox.landlock.abi", lambda: 0)
    kernel, _, sandbox = doctor._sandbox()
    assert (kernel.ok, kernel.found) == (False, "not in this kernel")
    assert (sandbox.ok, sandbox.found) == (False, "a trial guest reached: process")


def test_a_refused_priority_is_told(monkeypatch):
    priority, *_ = doctor._real_time(["SCHED_FIFO 80 refused"], [], [], [])
    assert (priority.ok, priority.found) == (False, "SCHED_FIFO 80 refused")


def test_a_trial_that_crashes_is_a_missing_thing():
    assert doctor._ask("raise SystemExit(3)") == ""
    assert doctor._ask("print('noise'); print('answer')") == "answer"


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    assert doctor._cache(tmp_path / "new" / "surefoot").ok
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot be written" in doctor._cache(tmp_path).found


def test_the_report_for_people():
    assert doctor.lines([GOOD, BAD]) == [
        "ok       cores  2 usable of 2",
        "MISSING  video  no context",
        "                without it: no video",
        "                do: install libegl1",
        "",
        "1 of 2 missing; runs say so.",
    ]


def test_the_report_for_scripts(monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: [GOOD, BAD])
    report = json.loads(doctor.doctor(json=True))
    assert (report["ok"], report["granted"], report["missing"]) == (False, ["cores"], ["video"])
    assert report["todo"] == {"video": "install libegl1"}
    assert doctor.doctor(json=False).startswith("ok ")
