"""The factors of a robot that is not as its model says are found; what is known travels with the guest's state."""

from collections.abc import Iterator
from itertools import pairwise

import mujoco
import numpy as np
import pytest

from bench.disturbed import DISTURBANCES, Disturbance, DisturbedPlant
from planners.identify import BOUND, Identifier, Told
from planners.planner import Budget, make_planner
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError
from runtime.guest import Guest
from tests.controllers.kit import stack
from tests.planners.kit import plans, rollouts, snapshots

NAMES = ("mass", "motors", "damping", "friction")
CHEETAH = stack("half_cheetah", f"planner.identify=[{', '.join(NAMES)}]")


def identifier() -> Identifier:
    return Identifier(NAMES, CHEETAH.robot.new_model(), CHEETAH.frame_skip)


def shaken(ticks: int, **factors: float) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """(tick, qpos, qvel, control held until then) of a robot with other factors under random controls."""
    told = Told(CHEETAH.robot.new_model())
    told.tell(tuple(factors), np.log(list(factors.values())))
    data, chance, control = mujoco.MjData(told.model), np.random.default_rng(3), np.zeros(6)
    for tick in range(ticks):
        yield tick, data.qpos.copy(), data.qvel.copy(), control
        control = chance.uniform(-1.0, 1.0, 6)
        data.ctrl[:] = control
        mujoco.mj_step(told.model, data, nstep=CHEETAH.frame_skip)


@pytest.mark.parametrize("factors", [
    {}, {"mass": 1.2}, {"motors": 0.9}, {"damping": 0.7}, {"mass": 0.85, "motors": 1.1, "damping": 1.2},
])  # fmt: skip
def test_what_the_robot_is_like_is_found_within_five_seconds(factors: dict[str, float]) -> None:
    found = identifier()
    for tick, qpos, qvel, held in shaken(100, **factors):
        found.observe(tick, qpos, qvel, held)
    for name in ("mass", "motors", "damping"):
        assert found.factors[name] == pytest.approx(factors.get(name, 1.0), rel=0.05)
    assert abs(found.logs).max() <= BOUND


def test_a_control_that_is_told_beforehand_teaches_the_same() -> None:
    afterwards, beforehand = identifier(), identifier()
    rows = list(shaken(8, mass=1.2))
    for row, after in pairwise(rows):
        afterwards.observe(*row)
        beforehand.observe(*row[:3], holding=after[3])
    assert afterwards.logs.any()
    assert afterwards.logs.tobytes() == beforehand.logs.tobytes()


def test_a_gap_and_what_is_not_finite_teach_nothing() -> None:
    found = identifier()
    (first, *_, last) = rows = list(shaken(6, mass=1.2))
    found.observe(*first)
    found.observe(*last)
    found.observe(last[0] + 1, last[1], np.full(9, np.nan), last[3])
    found.observe(last[0] + 2, *rows[2][1:])
    assert np.isfinite(found.state).all()
    assert not found.logs.any()


def test_rollouts_simulate_what_they_are_told_and_nothing_else() -> None:
    start, candidates = snapshots("half_cheetah")[8:9], plans(4, 6, 6)
    used, heavier = rollouts("half_cheetah"), rollouts("half_cheetah")
    before = used.run(start, candidates).copy()
    told = Told(used.model, used.renew)
    told.tell(["mass"], np.log([1.2]))
    changed = used.run(start, candidates).copy()
    heavier.model.body_mass *= 1.2
    heavier.model.body_inertia *= 1.2
    mujoco.mj_setConst(heavier.model, mujoco.MjData(heavier.model))
    heavier.restart_threads()
    np.testing.assert_allclose(changed, heavier.run(start, candidates), rtol=1e-12)
    assert abs(changed - before).max() > 1e-3
    told.tell(["mass"], np.zeros(1))
    assert used.run(start, candidates).tobytes() == before.tobytes()


@pytest.mark.parametrize("one_tick", [False, True])
def test_what_is_known_travels_with_the_state(one_tick: bool) -> None:
    guests = []
    for _ in range(2):
        made = make_planner(CHEETAH, threads=1)
        assert made is not None
        guests.append(Guest(CHEETAH, made[0], Budget(candidates=8)))
    first, second = guests
    world = DISTURBANCES["mass +20 %"]
    run_episode(first, _plant(world), EpisodeResult(4), one_tick=one_tick, steps=12)
    assert first.identifier is not None
    assert first.identifier.factors["mass"] > 1.05
    second.reset(4)
    for source, target in zip(first.states, second.states, strict=True):
        target[:] = source
    plant = _plant(world)
    plant.reset(4)
    qpos, qvel = plant.state()
    signals = np.zeros(1, CHEETAH.robot.signals)
    plant.signals(signals[0])
    signals["tick"], signals["period"] = 12, CHEETAH.period
    answers = []
    for guest in guests:
        seen = (qpos, qvel, signals, np.zeros((2, 3)))
        guest.answer(*(guest.predict(*seen) if one_tick else seen))
        answers.append(guest.commands.tobytes() + b"".join(s.tobytes() for s in guest.states))
        guest.close()
    assert answers[0] == answers[1]


def _plant(world: Disturbance) -> DisturbedPlant:
    return DisturbedPlant(CHEETAH.robot, world, CHEETAH.timestep, CHEETAH.frame_skip)


@pytest.mark.parametrize(("setting", "message"), [
    ("planner.identify=[mas]", "planner.identify: unknown factor 'mas'; did you mean 'mass'?"),
    ("planner.identify=mass", "planner.identify: expected a list of mass, motors, damping, friction, found 'mass'"),
    ("planner.every=2", "planner.identify: the model of a planner beside the layers cannot change while it plans"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(setting: str, message: str) -> None:
    with pytest.raises(SurefootError, match=message.replace("[", r"\[").replace("?", r"\?")):
        make_planner(stack("half_cheetah", "planner.identify=[mass]", setting), threads=1)
