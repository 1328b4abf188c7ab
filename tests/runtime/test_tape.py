"""The ring never blocks its writer and counts what it drops."""

import json
from typing import Any

import numpy as np
import pytest

from runtime.errors import SurefootError
from runtime.tape import EVENT, Ring, event_record, event_text, stalls

NUMBER = np.dtype([("value", "f8")])


def write(ring: Ring, *values: float) -> list[bool]:
    return [ring.append(np.array([(v,)], NUMBER)) for v in values]


def test_records_come_out_in_order_also_around_the_end() -> None:
    ring = Ring.create(NUMBER, 3)
    write(ring, 1, 2)
    ring.release(2)
    assert write(ring, 3, 4, 5) == [True] * 3
    assert list(ring.waiting()["value"]) == [3, 4, 5]


def test_a_full_ring_drops_the_new_record_and_counts_it() -> None:
    ring = Ring.create(NUMBER, 2)
    assert write(ring, 1, 2, 3) == [True, True, False]
    assert ring.header["lost"][0] == 1
    assert list(ring.waiting()["value"]) == [1, 2]


def test_nan_survives_bit_for_bit() -> None:
    ring = Ring.create(NUMBER, 2)
    payload = np.array([0x7FF8_0000_0000_0ABC], np.uint64).view(NUMBER)
    ring.append(payload)
    assert ring.waiting().tobytes() == payload.tobytes()


def test_a_reader_sees_what_the_writer_wrote() -> None:
    ring = Ring.create(NUMBER, 4)
    reader = Ring(NUMBER, ring.descriptor)
    write(ring, 7)
    assert list(reader.waiting()["value"]) == [7]
    reader.release(1)
    assert len(ring.waiting()) == 0


def test_a_ring_of_other_records_is_refused() -> None:
    ring = Ring.create(NUMBER, 4)
    with pytest.raises(SurefootError, match="not this robot's"):
        Ring(EVENT, ring.descriptor)


def test_a_long_event_is_cut_to_its_slot() -> None:
    record = event_record(1, 2, "x" * 5000)
    assert record["size"][0] == EVENT["text"].shape[0]


SHORT = {"slots": {"limb": "a" * 64}, "tick": 7}


@pytest.mark.parametrize(
    "details",
    [
        {"reason": "x" * 5000},
        {"reason": "\u672c" * 700},
        {"reason": "\U0001f9be" * 700, "last_words": '"\\\n' * 900},
        {"reason": "\udc80" * 2000},
        {"state_new": ["joint.field"] * 200},
        {f"fact_{i}": "y" * 90 for i in range(15)},
    ],
)
def test_an_event_of_any_length_is_json_that_fits_into_its_slot(details: dict[str, Any]) -> None:
    """A cut event was no JSON, and every recorder died on it."""
    record = event_record(1, 2, event_text("swap_rejected", {"tick": 7, **details}))
    said = json.loads(record["text"][0, : record["size"][0]].tobytes())
    assert {**said, **dict.fromkeys(details)} == {"event": "swap_rejected", "tick": 7, **dict.fromkeys(details)}
    assert all(len(said[key]) > 8 for key in details)


def test_an_event_that_fits_is_told_as_it_is() -> None:
    assert json.loads(event_text("seat", SHORT)) == {"event": "seat", **SHORT}
    exact = EVENT["text"].shape[0] - len(event_text("seat", {"reason": ""}))
    assert "\u2026" not in event_text("seat", {"reason": "x" * exact})


def test_a_stall_counts_once_however_many_ticks_it_covers() -> None:
    rows = np.zeros(8, [("skipped", "i8"), ("overrun", "i8")])
    rows["skipped"][1] = 5  # slept through
    rows["overrun"][3], rows["skipped"][4] = 1, 2  # held up within a tick, and the next ones skipped
    rows["overrun"][6] = 1
    assert stalls(rows) == 3
