"""The static check lets honest layers through, refuses everything else, and never executes anything."""

import random
from pathlib import Path

import pytest

from controllers.layer import LEVELS, available, find_layer
from runtime.errors import SurefootError
from runtime.static_check import check, require

LAYER = '''"""Joint: a test layer."""

import math
from dataclasses import dataclass

import numpy as np

from controllers.layer import param, state

JOINT = ("leg", "segment")
COUNT = 3
TABLE = np.array([1.0, 2.0 * math.pi, -(2**3)])


@dataclass(frozen=True)
class Params:
    """One gain."""

    kp: float = param(1.0, unit="1/rad", range=(0, 100), doc="Control per position error.", shape=JOINT)


@dataclass
class State:
    """Time."""

    ticks: float = state(0.0, unit="1", doc="Ticks since the start.")


def _gain(p, leg, segment):
    """The gain of a joint."""
    return p.kp[leg, segment]


def _count(s):
    """One more tick."""
    s.ticks += 1.0


def update(p, s, x, c):
    """Write the control of every joint."""
    _count(s)
    legs, segments = c.joint.control.shape
    for leg in range(legs):
        for segment in range(segments - 1):
            for k in range(COUNT):
                u = _gain(p, leg, segment) * math.sin(s.ticks + k) if k != 1 or not leg else TABLE[k]
                c.joint.control[leg, segment] = max(-1.0, min(1.0, u))
    n = len(TABLE)
    for i in range(1, n, 2):
        if math.isfinite(x.torso.tilt) and 0.0 < x.torso.tilt:
            continue
        s.ticks = float(int(s.ticks)) + np.abs(i)
'''
SHIPPED = [find_layer(level, name, Path()) for level in LEVELS for name in available(level)]


def body(statement):
    """The test layer with a statement as the first of update."""
    return LAYER.replace("    _count(s)\n", "    _count(s)\n    " + statement.replace("\n", "\n    ") + "\n")


def top(statement):
    """The test layer with a statement behind its constants."""
    return LAYER.replace("COUNT = 3\n", f"COUNT = 3\n{statement}\n")


COMPILED = [path for path in SHIPPED if "\nPYTHON = True" not in path.read_text()]


@pytest.mark.parametrize("path", COMPILED, ids=lambda p: p.stem)
def test_shipped_layers_pass(path):
    assert check(path.read_text()).findings == ()


def test_a_layer_in_plain_python_is_not_swapped_in():
    (patrol,) = [path for path in SHIPPED if path not in COMPILED]
    (finding,) = check(patrol.read_text()).findings
    assert finding.problem == "a layer in plain Python"
    assert "task level" in finding.remedy


def test_the_whole_subset_passes():
    assert check(LAYER).findings == ()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (body("while True:\n    pass"), "While in update; use `for"),
        (body("try:\n    pass\nfinally:\n    pass"), "Try in update"),
        (body("raise ValueError"), "Raise in update"),
        (body("assert s.ticks"), "Assert in update"),
        (body("with s:\n    pass"), "With in update"),
        (body("import os"), "Import in update"),
        (body("global COUNT"), "Global in update"),
        (body("del s.ticks"), "Delete in update"),
        (body("def _inner():\n    pass"), "FunctionDef in update"),
        (body("class Inner:\n    pass"), "ClassDef in update"),
        (body("match s.ticks:\n    case 1:\n        pass"), "Match in update"),
        (body("a = [1.0]"), "List in a function"),
        (body("a = {1.0}"), "Set in a function"),
        (body("a = {}"), "Dict in a function"),
        (body("a = [i for i in range(3)]"), "ListComp in a function"),
        (body("a = lambda: 1"), "Lambda in a function"),
        (body("a = f'{s.ticks}'"), "JoinedStr in a function"),
        (body("a = (b := 1.0)"), "NamedExpr in a function"),
        (body("yield s.ticks"), "Expr in update"),
        (body("a = 'text'"), "the constant 'text'"),
        (body("a = 1j"), "the constant 1j"),
        (body("a = x.joint.position[0, :]"), "Slice in a function"),
        (body("a = x.joint.position @ x.joint.position"), "matrix product"),
        (body("a = s.ticks is None"), "`is` or `in`"),
        (body("a = s.__class__"), "private attribute '__class__'"),
        (body("a = x._mask"), "private attribute '_mask'"),
        (body("a = x.joint.position.copy()"), "a call of 'x.joint.position.copy'"),
        (body("a = c.joint.control.fill(0.0)"), "a call of 'c.joint.control.fill'"),
        (body("print(s.ticks)"), "unknown name 'print'"),
        (body("a = getattr(s, 'ticks')"), "unknown name 'getattr'"),
        (body("a = speed"), "unknown name 'speed'"),
        (body("a = math.factorial(9)"), "math has no 'factorial'"),
        (body("a = np.zeros(3)"), "numpy has no 'zeros'"),
        (body("a = np.array(TABLE)"), "numpy has no 'array'"),
        (body("a = math.sin(x=1.0)"), "keyword argument 'x'"),
        (body("x.torso.tilt = 0.0"), "writes to 'x.torso.tilt'"),
        (body("p.kp[0, 0] += 1.0"), "writes to 'p.kp[0, 0]'"),
        (body("a = x.joint.position\na[0, 0] = 1.0"), "writes to 'a[0, 0]'"),
        (body("TABLE[0] = 1.0"), "writes to 'TABLE[0]'"),
        (body("math.pi = 3.0"), "writes to 'math.pi'"),
        (body("_count(x)"), "may write to its argument 's', which is 'x'"),
        (body("s = x"), "assigns to 's'"),
        (body("max = 1.0"), "assigns to 'max'"),
        (body("for math in range(3):\n    pass"), "assigns to 'math'"),
        (body("return s.ticks"), "update returns a value"),
        (body("for i in range(int(s.ticks)):\n    pass"), "a loop whose bound is not constant"),
        (body("n = 3\nfor i in range(n):\n    pass"), "a loop whose bound is not constant"),
        (body("for i in x.joint.position:\n    pass"), "a loop whose bound is not constant"),
        (body("legs = 10**9"), "a loop whose bound is not constant"),
        (body("for i in range(101):\n    for j in range(COUNT * 40):\n        pass"), "1.27e+04 times"),
        (body("for i in range(-1000000, 1):\n    pass"), "1e+06 times"),
        (top("import os"), "import of 'os'"),
        (top("import numpy.ctypeslib"), "import of 'numpy.ctypeslib'"),
        (top("from os import system"), "import of 'system' from 'os'"),
        (top("from math import sin"), "import of 'sin' from 'math'"),
        (top("from . import secrets"), "import of 'secrets' from '.'"),
        (top("from controllers.layer import hashlib"), "import of 'hashlib' from 'controllers.layer'"),
        (top("from controllers.layer import param as p"), "'param' under another name"),
        (top("from math import *"), "import of '*' from 'math'"),
        (top("gain = 1.0"), "module variable 'gain'"),
        (top("__all__ = ('update',)"), "module variable '__all__'"),
        (top("A = open('/etc/passwd')"), "Call in a constant"),
        (top("A = np.memmap('/etc/passwd')"), "numpy has no 'memmap'"),
        (top("A = np.core.sys"), "in a constant"),
        (top("A = ().__class__"), "in a constant"),
        (top("A = B"), "unknown name 'B'"),
        (top("A = 2**COUNT**9"), "power of unknown size"),
        (top("A = 2**1000"), "power of unknown size"),
        (top("A = [i for i in range(9)]"), "ListComp in a constant"),
        (top("A = B = 1"), "Assign at the top"),
        (top("A, B = 1, 2"), "Assign at the top"),
        (top("if True:\n    pass"), "If at the top"),
        (top("math.sin(1.0)"), "Expr at the top"),
        (top("class Other:\n    pass"), "ClassDef Other at the top"),
        (top("async def update(p, s, x, c):\n    pass"), "AsyncFunctionDef update at the top"),
        (top("def helper():\n    pass"), "function 'helper' is public"),
        (top("def __getattr__(name):\n    pass"), "function '__getattr__' is public"),
        (top("def _f(a=1.0):\n    pass"), "has defaults"),
        (top("def _f(*a):\n    pass"), "has defaults, * or **"),
        (top("@dataclass\ndef _f(a):\n    pass"), "_f is decorated"),
        (LAYER + "\n\ndef update(p, s, x, c):\n    pass\n", "update is defined twice"),
        (LAYER.replace("(p, s, x, c)", "(p, s, c, x)"), "update(p, s, c, x); its arguments are p, s, x, c"),
        (LAYER.replace("class Params:", "class Params(dict):"), "Params is not a plain dataclass"),
        (LAYER.replace("class State:", "class State(metaclass=type):"), "State is not a plain dataclass"),
        (LAYER.replace('doc="Ticks since the start."', ""), "State.ticks has no doc"),
        (LAYER.replace('unit="1/rad", range=(0, 100), ', ""), "Params.kp has no unit, range"),
        (LAYER.replace("    ticks: float", "    _ticks: float"), "State._ticks is private"),
        (LAYER.replace("ticks: float = state(0.0,", "ticks: float = state(open('x'),"), "Call in a constant"),
        (LAYER.replace("ticks: float = state", "ticks: print() = state"), "Call in a constant"),
        (LAYER.replace("ticks: float = state", "ticks: float = param"), "State holds something else than fields"),
        (
            LAYER.replace('"""Time."""', '"""Time."""\n\n    def reset(self):\n        pass'),
            "State holds something else",
        ),
        (LAYER.replace('"""Joint: a test layer."""', ""), "no docstring"),
        (LAYER.replace("class State", "class Stats"), "no class State"),
        (LAYER.replace("def update", "def _update"), "no update(p, s, x, c)"),
        (LAYER + "\0", "null bytes"),
        ("", "no docstring"),
    ],
)
def test_refuses(source, problem):
    assert problem in _lines(source)


def _lines(source):
    return " | ".join(str(finding) for finding in check(source).findings)


def test_a_finding_names_file_line_and_remedy():
    source = body("x.torso.tilt = 0.0\nraise ValueError")
    line = source.splitlines().index("    x.torso.tilt = 0.0") + 1
    with pytest.raises(SurefootError) as refusal:
        require(source, "limb.py")
    assert str(refusal.value) == (
        f"limb.py:{line}: writes to 'x.torso.tilt'; a layer writes to fields of s and c, nothing else (and 1 more)"
    )


def test_helpers_that_multiply_are_counted_without_walking_their_calls():
    """Sixty helpers that each call the next one twice are 2**60 calls."""
    chain = [f"def _f{i}(a):\n    return _f{i + 1}(a) + _f{i + 1}(a)\n\n\n" for i in range(60)]
    source = body("s.ticks = _f0(s.ticks)") + "\n\n" + "".join(chain) + "def _f60(a):\n    return a\n"
    assert "update may pass through loop bodies" in _lines(source)


def test_mutual_recursion_is_found():
    source = body("s.ticks = _f(1.0)") + "\n\ndef _f(a):\n    return _g(a)\n\n\ndef _g(a):\n    return _f(a)\n"
    assert "a function calls itself" in _lines(source)


def test_docstrings_and_comments_are_free():
    shorter = LAYER.replace('    """One more tick."""\n', "")
    longer = LAYER.replace("    _count(s)\n", "    # Why this is here, at some length.\n\n    _count(s)\n")
    assert check(shorter).complexity == check(LAYER).complexity == check(longer).complexity


def test_complexity_grows_with_what_there_is_to_read():
    grown = body("if s.ticks > 3.0 and s.ticks < 9.0:\n    s.ticks = 0.0")
    before, after = check(LAYER).complexity, check(grown).complexity
    assert (after.branches - before.branches, after.lines - before.lines) == (2, 2)
    assert after.nodes > before.nodes


def test_renaming_changes_no_complexity():
    assert check(LAYER.replace("COUNT", "N")).complexity == check(LAYER).complexity


def test_no_edit_of_a_layer_crashes_the_check():
    chance = random.Random(3)
    lines = LAYER.splitlines()
    for _ in range(150):
        edited = list(lines)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(edited))
            edited[at] = chance.choice(
                ["", edited[at] * 2, edited[at][chance.randrange(1 + len(edited[at])) :], "    0"]
            )
        check("\n".join(edited))
