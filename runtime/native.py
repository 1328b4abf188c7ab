"""MuJoCo for Numba: its functions, its arrays and its batches, called from compiled code without the GIL.

Compiled code holds models and simulations by address (`model._address`, `data._address`, unsigned integers). Whoever
passes an address keeps the Python object alive: a freed `MjData` is a segmentation fault.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import mujoco
import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from runtime.errors import SurefootError

LIBRARY_PATH = next(Path(mujoco.__file__).parent.glob("libmujoco.*"))
llvm.load_library_permanently(str(LIBRARY_PATH))
library = ctypes.CDLL(str(LIBRARY_PATH))
"""libmujoco for ctypes, which releases the GIL during every call."""
stage_timer = ctypes.c_void_p.in_dll(library, "mjcb_time")
"""Whom MuJoCo asks for the time between the stages of a step. Its Python package has a clock that costs 9 to 17 %."""
PACKAGE_TIMER = stage_timer.value
stage_timer.value = None

_model_and_data = types.void(types.uintp, types.uintp)
mj_step = types.ExternalFunction("mj_step", _model_and_data)
mj_forward = types.ExternalFunction("mj_forward", _model_and_data)
mj_rnePostConstraint = types.ExternalFunction("mj_rnePostConstraint", _model_and_data)
mj_resetData = types.ExternalFunction("mj_resetData", _model_and_data)
mjb_apply = types.ExternalFunction(
    "mjb_apply", types.int32(types.uintp, types.uintp, types.int32, types.uintp, types.uintp, types.int32)
)
"""Run a callback on simulations of a batch: (batch, ids or 0, number of ids, function, argument, save) -> failures."""


def pointer_to(kind: types.Type) -> Any:
    """A function for compiled code that turns an address into a pointer to `kind`, to be read with `numba.carray`."""

    @intrinsic
    def cast(typing_context: Any, address: types.Integer) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.uintp), generate

    return cast


float_pointer = pointer_to(types.float64)


def _offsets() -> dict[str, int]:
    """Byte offsets of fields in mjData, found by value: the layout changes from one MuJoCo version to the next.

    The pointers follow each other in the order of the arrays, and an empty array has the address of the one behind it,
    so the field is the last word of an unbroken run of words that hold the array's address.
    """
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body><joint name="j"/><geom size=".1"/></body></worldbody>
        <actuator><general joint="j" dyntype="integrator"/></actuator><sensor><jointpos joint="j"/></sensor></mujoco>"""
    )
    # What lies behind the struct may hold an address too; the offset of a field is the one that is the same in all.
    samples = [mujoco.MjData(model) for _ in range(3)]
    wanted = []
    for data in samples:
        data.time = 0.12345678901234567
        wanted.append({"time": np.float64(data.time).view(np.uint64)})
        for name in ("qpos", "qvel", "qacc_warmstart", "ctrl", "sensordata", "xpos", "cfrc_ext"):
            wanted[-1][name] = np.uint64(getattr(data, name).ctypes.data)
    found: dict[str, int] = {}
    for pages in range(500):  # page by page, to read nothing behind the struct's last one
        words = [_words(data._address, pages) for data in samples]
        for name in wanted[0].keys() - found.keys():
            hits = [set(np.flatnonzero(w == v[name]).tolist()) for w, v in zip(words, wanted, strict=True)]
            if common := sorted(set.intersection(*hits)):
                if common[-1] - common[0] != len(common) - 1 and name != "qpos":  # the buffer begins with qpos
                    raise SurefootError(f"MuJoCo {mujoco.__version__}: mjData.{name} stands in more than one place")
                found[name] = common[-1] * 8
        if len(found) == len(wanted[0]):
            break
    else:
        raise SurefootError(f"MuJoCo {mujoco.__version__}: mjData has no {', '.join(wanted[0].keys() - found.keys())}")
    return found


def _words(address: int, pages: int) -> np.ndarray:
    """The 8-byte words from an address to the end of its page, and of as many pages after that."""
    size = 4096 * (1 + pages) - address % 4096
    return np.ctypeslib.as_array((ctypes.c_uint64 * (size // 8)).from_address(address))


_OFFSET = _offsets()
# Module constants, so that compiled code sees literals. Code that uses them may be cached only under a key that holds
# MuJoCo's version.
TIME = _OFFSET["time"]
QPOS = _OFFSET["qpos"]
QVEL = _OFFSET["qvel"]
QACC_WARMSTART = _OFFSET["qacc_warmstart"]
CTRL = _OFFSET["ctrl"]
SENSORDATA = _OFFSET["sensordata"]
XPOS = _OFFSET["xpos"]
CFRC_EXT = _OFFSET["cfrc_ext"]

_word_pointer = pointer_to(types.uintp)


@njit(inline="always")
def floats_at(address: int, size: int) -> Any:
    """The `size` float64 numbers at an address, as an array view."""
    return carray(float_pointer(address), (size,))


@njit(inline="always")
def field_of(data: int, offset: int, size: int) -> Any:
    """An array field of the mjData at address `data`, flat, as a view: offset is one of this module's constants."""
    return floats_at(carray(_word_pointer(data + offset), (1,))[0], size)


@njit(inline="always")
def qpos_of(data: int, nq: int) -> Any:
    """Generalised positions (nq,)."""
    return field_of(data, QPOS, nq)


@njit(inline="always")
def qvel_of(data: int, nv: int) -> Any:
    """Generalised velocities (nv,)."""
    return field_of(data, QVEL, nv)


@njit(inline="always")
def qacc_warmstart_of(data: int, nv: int) -> Any:
    """The solver's initial guess (nv,); zero it at the start of a rollout, or results depend on what ran before."""
    return field_of(data, QACC_WARMSTART, nv)


@njit(inline="always")
def ctrl_of(data: int, nu: int) -> Any:
    """Actuator controls (nu,)."""
    return field_of(data, CTRL, nu)


@njit(inline="always")
def sensordata_of(data: int, nsensordata: int) -> Any:
    """Sensor readings (nsensordata,)."""
    return field_of(data, SENSORDATA, nsensordata)


@njit(inline="always")
def time_of(data: int) -> Any:
    """Simulation time (1,) [s], writable."""
    return floats_at(data + TIME, 1)


_warnings = (ctypes.c_int64 * 1)()
llvm.add_symbol("surefoot_mujoco_warnings", ctypes.addressof(_warnings))


@intrinsic
def _count(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        counter = cgutils.add_global_variable(builder.module, word, "surefoot_mujoco_warnings")
        builder.atomic_rmw("add", counter, word(1), "monotonic")
        return context.get_dummy_value()

    return types.void(), generate


@cfunc(types.void(types.uintp))
def _on_warning(message: int) -> None:
    _count()


# MuJoCo's own handler prints and writes a file from inside the physics step.
ctypes.c_void_p.in_dll(library, "mju_user_warning").value = _on_warning.address


def warnings() -> int:
    """How many warnings MuJoCo's compiled callers caused in this process."""
    return int(_warnings[0])


class _BatchConfig(ctypes.Structure):
    _fields_ = (("nthread", ctypes.c_int), ("persistent", ctypes.c_bool))


_address, _int = ctypes.c_void_p, ctypes.c_int
library.mjb_makeBatch.argtypes = [_address, _int, ctypes.POINTER(_BatchConfig), ctypes.c_char_p, _int]
library.mjb_makeBatch.restype = _address
library.mjb_apply.argtypes = [_address, _address, _int, _address, _address, _int]
library.mjb_apply.restype = _int
library.mjb_deleteBatch.argtypes = [_address]
library.mjb_deleteBatch.restype = None
library.mjb_error.argtypes = [_address, _int]
library.mjb_error.restype = ctypes.c_char_p
library.mj_copyModel.argtypes = [_address, _address]
library.mj_copyModel.restype = _address


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Batch:
    """Simulations of a copy of one model on MuJoCo's thread pool, which runs a compiled callback on each of them.

    The callback is a `numba.cfunc` of signature `void(uintp model, uintp data, int32 simulation, uintp argument)`.
    """

    def __init__(self, model: mujoco.MjModel, simulations: int, threads: int) -> None:
        """Start the pool; it inherits the scheduling policy and affinity of the calling thread.

        Args:
            model: Copied; later changes to it have no effect before `update`.
            simulations: Most simulations that one `apply` runs.
            threads: Threads, the caller's included.
        """
        self.simulations = simulations
        reason = ctypes.create_string_buffer(1000)
        config = _BatchConfig(threads, False)
        self.address = library.mjb_makeBatch(model._address, simulations, ctypes.byref(config), reason, len(reason))
        if not self.address:
            raise SurefootError(f"MuJoCo cannot make a batch of {simulations}: {reason.value.decode()}")
        self._ids = np.arange(simulations, dtype=np.int32)
        self._copy = 0
        """Address of the batch's own model."""

    def apply(self, callback: int, argument: int, count: int | None = None) -> None:
        """Run the callback at an address on simulations 0..count-1 (default: all), without the GIL.

        Raises:
            SurefootError: MuJoCo reports an error in a simulation.
        """
        count = self.simulations if count is None else count
        if library.mjb_apply(self.address, self._ids.ctypes.data, count, callback, argument, 0):
            reasons = (library.mjb_error(self.address, i).decode() for i in range(count))
            raise SurefootError(f"a rollout failed in MuJoCo: {next(filter(None, reasons), 'no reason given')}")

    def update(self, model: mujoco.MjModel) -> None:
        """Take over the numbers of a model of the same layout as the first one."""
        if not self._copy:
            find = _CALLBACK(lambda copy, data, simulation, argument: setattr(self, "_copy", copy))
            self.apply(ctypes.cast(find, ctypes.c_void_p).value or 0, 0, 1)
        library.mj_copyModel(self._copy, model._address)

    def close(self) -> None:
        """Stop the threads and free the simulations."""
        if self.address:
            library.mjb_deleteBatch(self.address)
            self.address = None

    def __del__(self) -> None:
        """Free what was not closed."""
        if getattr(self, "address", None):
            self.close()
