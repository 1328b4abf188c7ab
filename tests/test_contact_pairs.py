"""Writing out contact pairs: the same contacts, bit by bit, or nothing changes."""

import mujoco
import numpy as np
import pytest

from runtime.contact_pairs import write_out_pairs
from runtime.records import load_robot

BALL = """<mujoco><option timestep="0.005"/><worldbody>
  <geom name="floor" type="plane" size="5 5 .1" {floor}/>
  <geom type="box" size=".3 .3 .05" pos="0 0 .05" {floor}/>
  <body pos="0.1 0 0.3"><freejoint/><geom type="capsule" size=".1 .2" euler="60 10 0" {ball}/>
    <body pos=".3 0 0"><joint axis="0 1 0" damping=".1"/><geom size=".1" pos=".1 0 0" {ball}/></body></body>
</worldbody>{more}</mujoco>"""
MIXED = {
    "plain": ("", ""),
    "friction": ('friction=".3 .2 .1"', 'friction=".9 .01 .3"'),
    "dimensions": ('condim="1"', 'condim="6"'),
    "stiffness": ('solref=".03 .7" solimp=".8 .9 .002 .4 3"', 'solref=".02 1.1" solimp=".5 .95 .001 .5 2"'),
    "margin": ('margin=".02"', 'margin=".03"'),
    "gap": ('margin=".05" gap=".01"', 'margin=".04" gap=".03"'),
}
APART = 'contype="1" conaffinity="0"'
UNCHANGED = {
    "touches itself": ("", "", ""),
    "priority": ("", f'{APART} priority="1"', ""),
    "solmix": ("", f'{APART} solmix="2"', ""),
    "direct stiffness": ("", f'{APART} solref="-1000 -100"', ""),
    "pairs of its own": ("", APART, '<contact><pair geom1="floor" geom2="floor"/></contact>'),
}


def both(floor: str, ball: str, more: str = "") -> list[mujoco.MjModel]:
    xml = BALL.format(floor=floor, ball=ball, more=more)
    spec = mujoco.MjSpec.from_string(xml)
    plain = mujoco.MjModel.from_xml_string(xml)
    write_out_pairs(spec, plain)
    return [plain, spec.compile()]


@pytest.mark.parametrize("case", MIXED)
def test_contacts_are_the_same_bit_by_bit(case: str) -> None:
    floor, ball = MIXED[case]
    plain, paired = both(floor + " conaffinity='1' contype='0'", f"{ball} {APART}")
    assert (plain.npair, paired.npair) == (0, 4)
    states = [mujoco.MjData(model) for model in (plain, paired)]
    touched = 0
    for _ in range(400):
        for model, data in zip((plain, paired), states, strict=True):
            mujoco.mj_step(model, data)
        np.testing.assert_array_equal(states[0].qpos, states[1].qpos)
        touched += states[0].ncon
    assert touched > 100


@pytest.mark.parametrize("case", UNCHANGED)
def test_what_mujoco_would_not_simply_average_stays(case: str) -> None:
    plain, same = both(*UNCHANGED[case])
    assert same.npair == plain.npair
    np.testing.assert_array_equal(same.geom_contype, plain.geom_contype)


@pytest.mark.parametrize("robot", ["ant", "half_cheetah"])
def test_the_shipped_robots_have_them(robot: str) -> None:
    model = load_robot(robot).model
    assert model.npair == model.ngeom - 1
    assert not model.geom_contype.any() and not model.geom_conaffinity.any()
