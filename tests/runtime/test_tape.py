"""The ring never blocks its writer and counts what it drops."""

import numpy as np
import pytest

from runtime.errors import SurefootError
from runtime.tape import EVENT, Ring, event_record, stalls

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


def test_a_stall_counts_once_however_many_ticks_it_covers() -> None:
    rows = np.zeros(8, [("skipped", "i8"), ("overrun", "i8")])
    rows["skipped"][1] = 5  # slept through
    rows["overrun"][3], rows["skipped"][4] = 1, 2  # held up within a tick, and the next ones skipped
    rows["overrun"][6] = 1
    assert stalls(rows) == 3
