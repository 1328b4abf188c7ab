"""libmujoco from compiled code against the same calls through MuJoCo's Python bindings."""

from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest
from numba import cfunc, njit, types

from runtime import native

MJCF = """
<mujoco>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body pos="0 0 .3"><freejoint/><geom size=".1"/>
      <body pos=".2 0 0"><joint name="hinge" axis="0 1 0"/><geom size=".05"/><site name="foot"/></body></body>
  </worldbody>
  <actuator><motor joint="hinge"/></actuator>
  <sensor><touch site="foot"/></sensor>
</mujoco>"""
NQ, NV = 8, 7


@pytest.fixture
def model() -> mujoco.MjModel:
    model = mujoco.MjModel.from_xml_string(MJCF)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


@njit
def write_everywhere(data: int) -> None:
    native.qpos_of(data, NQ)[:] = 1.0
    native.qvel_of(data, NV)[:] = 2.0
    native.qacc_warmstart_of(data, NV)[:] = 3.0
    native.ctrl_of(data, 1)[:] = 4.0
    native.sensordata_of(data, 1)[:] = 5.0
    native.field_of(data, native.XPOS, 9)[:] = 6.0
    native.field_of(data, native.CFRC_EXT, 18)[:] = 7.0
    native.time_of(data)[0] = 8.0


def test_each_field_of_mjdata_stands_where_the_bindings_see_it(model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    write_everywhere(data._address)
    seen = (data.qpos, data.qvel, data.qacc_warmstart, data.ctrl, data.sensordata, data.xpos, data.cfrc_ext, data.time)
    for expected, values in enumerate(seen, start=1):
        np.testing.assert_array_equal(values, expected)


@njit
def fall(model: int, data: int, steps: int) -> None:
    native.mj_resetData(model, data)
    native.mj_forward(model, data)
    for _ in range(steps):
        native.mj_step(model, data)
    native.mj_rnePostConstraint(model, data)


def test_compiled_steps_equal_those_of_the_bindings(model: mujoco.MjModel) -> None:
    ours, theirs = mujoco.MjData(model), mujoco.MjData(model)
    fall(model._address, ours._address, 200)
    mujoco.mj_forward(model, theirs)
    mujoco.mj_step(model, theirs, nstep=200)
    mujoco.mj_rnePostConstraint(model, theirs)
    assert theirs.ncon > 0
    for field in ("qpos", "qvel", "xpos", "cfrc_ext"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_a_warning_is_counted_and_neither_printed_nor_written(
    model: mujoco.MjModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = mujoco.MjData(model)
    data.qpos[0] = np.nan
    before = native.warnings()
    mujoco.mj_step(model, data)
    assert native.warnings() > before
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@cfunc(types.void(types.uintp, types.uintp, types.int32, types.uintp))
def drop_from(model: int, data: int, simulation: int, argument: int) -> None:
    heights = native.floats_at(argument, 6)
    native.mj_resetData(model, data)
    native.qpos_of(data, NQ)[2] = heights[simulation]
    for _ in range(100):
        native.mj_step(model, data)
    heights[simulation] = native.qpos_of(data, NQ)[2]


@pytest.fixture
def batch(model: mujoco.MjModel) -> Iterator[native.Batch]:
    batch = native.Batch(model, simulations=6, threads=2)
    yield batch
    batch.close()


def test_a_batch_runs_the_callback_on_each_simulation(model: mujoco.MjModel, batch: native.Batch) -> None:
    start = np.linspace(0.2, 1.2, 6)
    heights = start.copy()
    batch.apply(drop_from.address, heights.ctypes.data)
    for height, z in zip(heights, start, strict=True):
        data = mujoco.MjData(model)
        data.qpos[2] = z
        mujoco.mj_step(model, data, nstep=100)
        assert height == data.qpos[2]


def test_a_batch_runs_no_more_simulations_than_asked(batch: native.Batch) -> None:
    heights = np.full(6, 0.5)
    batch.apply(drop_from.address, heights.ctypes.data, count=4)
    assert np.all(heights[:4] != 0.5)
    assert np.all(heights[4:] == 0.5)


def test_a_closed_batch_can_be_closed_again(model: mujoco.MjModel) -> None:
    batch = native.Batch(model, simulations=1, threads=1)
    batch.close()
    batch.close()
    assert batch.address is None
