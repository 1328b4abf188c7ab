"""The C library: the few functions that compiled loops call directly, without the GIL and without allocation, and a
handle for Python."""

import ctypes
from typing import Any

from numba import types

library = ctypes.CDLL(None, use_errno=True)


def _external(name: str, result: Any, *arguments: Any) -> Any:
    """Declares a C function to Numba; addresses travel as unsigned integers."""
    return types.ExternalFunction(name, result(*arguments))


_int: Any = types.int32
_long: Any = types.int64
_address: Any = types.uintp

clock_gettime = _external("clock_gettime", _int, _int, _address)
clock_nanosleep = _external("clock_nanosleep", _int, _int, _int, _address, _address)
timerfd_settime = _external("timerfd_settime", _int, _int, _int, _address, _address)
sem_post = _external("sem_post", _int, _address)
sem_trywait = _external("sem_trywait", _int, _address)
sem_clockwait = _external("sem_clockwait", _int, _address, _int, _address)
memcpy = _external("memcpy", _address, _address, _address, _long)
