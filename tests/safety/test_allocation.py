"""The monitor's tick allocates nothing."""

from typing import Any

import numba
import numpy as np
from numba.core.runtime import _nrt_python, rtsys

from safety.kernel import filter_command
from safety.monitor import Monitor
from safety.rulefile import load_rules


@numba.njit(nogil=True)
def filter_often(tape: Any, memory: Any, inputs: Any, control: Any, ticks: int) -> None:
    for _ in range(ticks):
        filter_command(tape, memory, inputs, control)


@numba.njit(nogil=True)
def allocate_often(ticks: int) -> float:
    total = 0.0
    for n in range(ticks):
        total += np.ones(3 + n % 2)[0]
    return total


def allocations(function: Any, *arguments: Any) -> int:
    """How many blocks of memory a compiled function asks for."""
    function(*arguments)
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats().alloc
        function(*arguments)
        return int(rtsys.get_allocation_stats().alloc - before)
    finally:
        _nrt_python.memsys_disable_stats()


def test_a_thousand_ticks_allocate_no_more_than_one() -> None:
    for name in ("ant", "half_cheetah-multirate"):
        monitor = Monitor(load_rules(name))
        arguments = (monitor.tape, monitor.memory, monitor.inputs, np.zeros(len(monitor.rules.layout.joints)))
        assert allocations(filter_often, *arguments, 1000) == allocations(filter_often, *arguments, 1)


def test_allocations_would_be_seen() -> None:
    assert allocations(allocate_often, 1000) >= allocations(allocate_often, 1) + 999
