"""Configuration files: what is wrong in them is refused in one line that names the place and the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import config
from runtime.config import Section, array, integer, load, number, override, text
from runtime.errors import SurefootError


def refused(action: Callable[[], Any]) -> str:
    with pytest.raises(SurefootError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / "x.yaml"
        path.write_text(content)
        return path

    return write


def test_a_file_reads_as_a_mapping(file: Callable[[str], Path]) -> None:
    assert load(file("a: 1\nb: {c: [1, 2]}")) == {"a": 1, "b": {"c": [1, 2]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3", "x.yaml:3: key 'a' is given twice"),
        ("a:\n  b: 1\n  b: 2", "x.yaml:3: key 'b' is given twice"),
        ("? [1, 2]\n: 3", "x.yaml:1: a key must be a word or a number"),
        ("a: [1", "x.yaml: not valid YAML: "),
        ("a:\n\t- 1", "x.yaml: not valid YAML: "),
        ("a: !!python/object:os.system {}", "x.yaml: not valid YAML: "),
        ("- 1", "x.yaml: expected a mapping of keys to values"),
        ("", "x.yaml: expected a mapping of keys to values"),
    ],
)
def test_malformed_files_are_refused(file: Callable[[str], Path], content: str, message: str) -> None:
    assert message in refused(lambda: load(file(content)))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(lambda: load(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "binary.yaml: not a text file in UTF-8" in refused(lambda: load(tmp_path / "binary.yaml"))


def test_names_are_found_or_the_nearest_is_named() -> None:
    assert config.find("robots", "ant").name == "ant.yaml"
    assert refused(lambda: config.find("robots", "aant")).startswith(
        "unknown robot 'aant'; did you mean 'ant'? valid: "
    )
    assert refused(lambda: config.find("robots", "no/such.yaml")) == "no/such.yaml: no such file"


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a.b=2", {"a": {"b": 2}}),
        ("a.c=[1, 2]", {"a": {"b": 1, "c": [1, 2]}}),
        ("d=20 Hz", {"a": {"b": 1}, "d": "20 Hz"}),
        ("a={}", {"a": {}}),
        ("a.b=x=y", {"a": {"b": "x=y"}}),
    ],
)
def test_an_assignment_overrides_one_value(assignment: str, expected: dict[str, Any]) -> None:
    data: dict[str, Any] = {"a": {"b": 1}}
    override(data, assignment)
    assert data == expected


def test_an_assignment_reaches_into_a_list() -> None:
    data: dict[str, Any] = {"a": [[1, 2], {"b": 3}]}
    override(data, "a.0.1=5")
    override(data, "a.1.b=6")
    assert data == {"a": [[1, 5], {"b": 6}]}
    assert refused(lambda: override(data, "a.2=1")) == "--set a.2: '2' is no place in a list of 2, from 0 on"
    assert refused(lambda: override(data, "a.x.1=1")) == "--set a.x.1: 'x' is no place in a list of 2, from 0 on"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a", "--set a: expected key=value, such as layers.joint.kp=2"),
        ("=1", "--set =1: expected key=value, such as layers.joint.kp=2"),
        ("aa.b=1", "--set aa.b: no section 'aa'; did you mean 'a'? valid: a"),
        ("a.b.c=1", "--set a.b.c: a.b is no section"),
        ("a.b.c.d=1", "--set a.b.c.d: a.b is no section"),
        ("a.b=[1", "--set a.b: '[1' is not a value"),
    ],
)
def test_assignments_that_fit_nowhere_are_refused(assignment: str, message: str) -> None:
    data: dict[str, Any] = {"a": {"b": 1}}
    assert refused(lambda: override(data, assignment)) == message
    assert data == {"a": {"b": 1}}


def test_a_section_knows_where_it_stands() -> None:
    section = Section({"a": {"b": {"c": 1}}}, "x.yaml").section("a").section("b")
    assert section.where == "x.yaml: a.b"
    assert refused(lambda: section.take("d", text)) == "x.yaml: a.b: key 'd' is missing"
    assert refused(lambda: section.take("c", text)) == "x.yaml: a.b.c: expected a word, found 1"
    assert section.take("d", text, "default") == "default"


def test_keys_that_nobody_takes_are_refused() -> None:
    section = Section({"speed": 1, "sped": 2}, "x.yaml")
    section.take("speed", integer(0, 5))
    assert refused(section.finish) == "x.yaml: unknown key 'sped'; did you mean 'speed'? valid: speed"


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (0.5, 0.5), ("0.5", 0.5), ("5e-1", 0.5), ("50 cm", 0.5)])
def test_numbers_read(value: object, expected: float) -> None:
    assert number(0.0, 1.0, "m")(value, "here") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "here: expected a finite number [m], found nan"),
        ("inf", "here: expected a finite number [m], found inf"),
        (10**400, "here: expected a finite number [m], found inf"),
        (True, "here: expected a finite number [m], found True"),
        (None, "here: expected a finite number [m], found None"),
        ([1], "here: expected a finite number [m], found [1]"),
        (1.5, "here: 1.5 is outside [0, 1] m"),
        (-1, "here: -1 is outside [0, 1] m"),
        ("1 kg", "here: "),
        ("one", "here: "),
    ],
)
def test_what_is_no_number_here_is_refused(value: object, message: str) -> None:
    assert message in refused(lambda: number(0.0, 1.0, "m")(value, "here"))


def test_arrays_read_with_the_place_of_each_number() -> None:
    read = array((2, 2), 0.0, 1.0, "m")
    np.testing.assert_array_equal(read([[0, "10 cm"], [1, 0.5]], "here"), [[0.0, 0.1], [1.0, 0.5]])
    assert refused(lambda: read([[0, 0], [0, 2]], "here")) == "here[1][1]: 2 is outside [0, 1] m"
    assert refused(lambda: read([[0, 0]], "here")) == "here: expected 2 x 2 numbers, found [[0, 0]]"
    assert refused(lambda: read([[0, 0], [0]], "here")) == "here[1]: expected 2 x 2 numbers, found [0]"


@pytest.mark.parametrize("value", [True, 1.0, "1", 0, 6, None])
def test_whole_numbers_are_whole_and_in_range(value: object) -> None:
    assert "here: expected a whole number in [1, 5], found" in refused(lambda: integer(1, 5)(value, "here"))
