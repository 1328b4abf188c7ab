"""Rows that are finished stay; rows that are not leave nothing."""

import json
import resource

import pytest

from runtime.errors import SurefootError
from runtime.journal import Journal, replace


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "rows.jsonl")


def test_rows_come_back_in_order(journal):
    assert journal.rows() == []
    with journal.locked():
        for i in range(3):
            journal.append({"i": i, "word": "é\n"})
    assert journal.rows() == [{"i": i, "word": "é\n"} for i in range(3)]


def test_a_torn_last_line_is_skipped_and_cut_off_by_the_next_row(journal):
    journal.append({"i": 0})
    with journal.path.open("ab") as stream:
        stream.write(b'{"i": 1, "torn')
    assert journal.rows() == [{"i": 0}]
    journal.append({"i": 2})
    assert journal.rows() == [{"i": 0}, {"i": 2}]


def test_a_tear_longer_than_one_block_is_cut_off(journal):
    journal.append({"i": 0})
    with journal.path.open("ab") as stream:
        stream.write(b"x" * 200_000)
    journal.append({"i": 1})
    assert journal.rows() == [{"i": 0}, {"i": 1}]


def test_an_edited_line_is_named(journal):
    journal.append({"i": 0})
    journal.append({"i": 1})
    journal.path.write_text(journal.path.read_text().replace("}\n{", "}\n["))
    with pytest.raises(SurefootError, match=r"rows\.jsonl:2: not a JSON object"):
        journal.rows()


def test_a_full_disk_writes_nothing_of_the_row(journal):
    journal.append({"i": 0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SurefootError, match="the row is not written: File too large"):
            journal.append({"i": "x" * 5000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.path.read_bytes() == json.dumps({"i": 0}).encode() + b"\n"


def test_what_json_cannot_say_is_refused_before_anything_is_written(journal):
    with pytest.raises(ValueError):
        journal.append({"score": float("nan")})
    assert not journal.path.exists()


def test_replacing_fails_whole(tmp_path):
    path = tmp_path / "active.json"
    replace(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SurefootError, match="cannot be written: File too large"):
            replace(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
