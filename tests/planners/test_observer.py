"""The state behind noisy readings is found, and the factors of a robot that is not as its model says.

What is known travels with the guest's state.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import mujoco
import numpy as np
import pytest

from bench.disturbed import DISTURBANCES, Disturbance, DisturbedPlant
from controllers.stack import Stack
from planners.factors import BOUND, Told
from planners.observer import Observer, SensorNoise, sigma_points
from planners.planner import Budget, make_planner
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError
from runtime.guest import Guest
from tests.controllers.kit import stack
from tests.planners.kit import plans, rollouts, snapshots

NAMES = ("mass", "motors", "damping", "friction")
NOISE = SensorNoise(0.005, 0.05)
CHEETAH = stack("half_cheetah", f"planner.identify=[{', '.join(NAMES)}]")


def observer() -> Observer:
    return Observer(CHEETAH.robot.new_model(), CHEETAH.frame_skip, NAMES, SensorNoise())


def shaken(
    ticks: int,
    factors: Mapping[str, float] | None = None,
    used: Stack = CHEETAH,
    model: mujoco.MjModel | None = None,
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """(tick, qpos, qvel, control held until then) of a robot with other factors under random controls."""
    told = Told(used.robot.new_model() if model is None else model)
    told.tell(tuple(factors or ()), np.log(list((factors or {}).values())))
    data, chance, control = mujoco.MjData(told.model), np.random.default_rng(3), np.zeros(told.model.nu)
    for tick in range(ticks):
        yield tick, data.qpos.copy(), data.qvel.copy(), control
        control = chance.uniform(-1.0, 1.0, told.model.nu)
        data.ctrl[:] = control
        mujoco.mj_step(told.model, data, nstep=round(used.period / told.model.opt.timestep))


@pytest.mark.parametrize("factors", [
    {}, {"mass": 1.2}, {"motors": 0.9}, {"damping": 0.7}, {"mass": 0.85, "motors": 1.1, "damping": 1.2},
])  # fmt: skip
def test_what_the_robot_is_like_is_found_within_five_seconds(factors: dict[str, float]) -> None:
    found = observer()
    for tick, qpos, qvel, held in shaken(100, factors):
        found.observe(tick, qpos, qvel, held)
    for name in ("mass", "motors", "damping"):
        assert found.factors[name] == pytest.approx(factors.get(name, 1.0), rel=0.01)
    assert abs(found.identification.logs).max() <= BOUND


@pytest.mark.parametrize("name", ["half_cheetah", "ant"])
@pytest.mark.parametrize(("softness", "noise"), [(2.0, 0.0), (1.0, 0.005)])
def test_what_explains_nothing_is_not_told(softness: float, noise: float, name: str) -> None:
    """Contacts that are softer than the model says are no factor's fault, and neither is noise."""
    used = stack(name)
    model = used.robot.new_model()
    model.pair_solref[:, 0] *= softness
    found, chance = Observer(used.robot.new_model(), used.frame_skip, NAMES, NOISE), np.random.default_rng(4)
    for tick, qpos, qvel, held in shaken(100, used=used, model=model):
        position = noise * chance.standard_normal(qpos.size)
        found.observe(tick, qpos + position, qvel + 10.0 * noise * chance.standard_normal(qvel.size), held)
        assert set(found.factors.values()) == {1.0}
    assert abs(found.identification.logs).max() > 0.003


@pytest.mark.parametrize(("name", "factors"), [("half_cheetah", {"mass": 1.2}), ("ant", {"motors": 0.9})])
def test_what_the_robot_is_like_is_found_and_told_under_noise(name: str, factors: dict[str, float]) -> None:
    used, chance = stack(name), np.random.default_rng(4)
    found = Observer(used.robot.new_model(), used.frame_skip, NAMES, NOISE)
    for tick, qpos, qvel, held in shaken(120, factors, used):
        position, velocity = 0.005 * chance.standard_normal(qpos.size), 0.05 * chance.standard_normal(qvel.size)
        found.observe(tick, qpos + position, qvel + velocity, held)
    for factor, value in factors.items():
        assert found.factors[factor] == pytest.approx(value, rel=0.03)


def test_a_control_that_is_told_beforehand_teaches_the_same() -> None:
    afterwards, beforehand = observer(), observer()
    rows = list(shaken(8, {"mass": 1.2}))
    for row, after in pairwise(rows):
        afterwards.observe(*row)
        beforehand.observe(*row[:3], holding=after[3])
    assert afterwards.identification.logs.any()
    assert afterwards.identification.logs.tobytes() == beforehand.identification.logs.tobytes()


def test_a_gap_and_what_is_not_finite_teach_nothing() -> None:
    found = observer()
    (first, *_, last) = rows = list(shaken(6, {"mass": 1.2}))
    found.observe(*first)
    found.observe(*last)
    found.observe(last[0] + 1, last[1], np.full(9, np.nan), last[3])
    found.observe(last[0] + 2, *rows[2][1:])
    assert np.isfinite(found.identification.logs).all()
    assert not found.identification.logs.any()


@pytest.mark.parametrize(("name", "positions", "velocities"), [("half_cheetah", 0.27, 0.37), ("ant", 0.40, 0.49)])
def test_the_state_behind_noisy_readings_is_found(name: str, positions: float, velocities: float) -> None:
    """Up to a share of the noise that a filter whose derivatives are differences does not reach."""
    noise, used = SensorNoise(0.005, 0.05), stack(name)
    found = Observer(used.robot.new_model(), used.frame_skip, (), noise)
    chance, errors, noises = np.random.default_rng(5), [], []
    for tick, qpos, qvel, held in shaken(200, used=used):
        read = qpos + noise.position * chance.standard_normal(qpos.size)
        read_velocity = qvel + noise.velocity * chance.standard_normal(qvel.size)
        found.observe(tick, read, read_velocity, held)
        errors.append((np.abs(found.qpos - qpos).mean(), np.abs(found.qvel - qvel).mean()))
        noises.append((np.abs(read - qpos).mean(), np.abs(read_velocity - qvel).mean()))
    position, velocity = np.mean(errors, axis=0) / np.mean(noises, axis=0)
    assert position < positions
    assert velocity < velocities


def test_sigma_points_are_spread_evenly() -> None:
    points = sigma_points(28)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(points.T @ points / len(points), np.eye(28), atol=1e-12)
    distances = np.linalg.norm(points[:, None] - points, axis=2)[~np.eye(len(points), dtype=bool)]
    np.testing.assert_allclose(distances, distances[0])
    assert abs(points).max() < 3.0


@pytest.mark.parametrize("noise", [SensorNoise(0.005, 0.0), SensorNoise(0.0, 0.05)])
def test_noise_may_be_of_one_kind_alone(noise: SensorNoise) -> None:
    used, chance = stack("ant"), np.random.default_rng(5)
    found, errors = Observer(used.robot.new_model(), used.frame_skip, (), noise), []
    for tick, qpos, qvel, held in shaken(60, used=used):
        read = qpos + noise.position * chance.standard_normal(qpos.size)
        found.observe(tick, read, qvel + noise.velocity * chance.standard_normal(qvel.size), held)
        errors.append((found.qpos - qpos, found.qvel - qvel))
    for estimated, size in zip(zip(*errors, strict=True), (noise.position, noise.velocity), strict=True):
        assert np.abs(estimated).mean() <= 0.7 * size + 1e-12


def test_readings_without_noise_are_the_state() -> None:
    found = observer()
    for tick, qpos, qvel, held in shaken(5, {"mass": 1.2}):
        found.observe(tick, qpos, qvel, held)
        assert found.qpos.tobytes() + found.qvel.tobytes() == qpos.tobytes() + qvel.tobytes()


@pytest.mark.parametrize("name", ["half_cheetah", "ant"])
@pytest.mark.parametrize("factors", [{"mass": 1.2}, {"damping": 0.7}])
def test_readings_that_forces_explain_are_the_state_though_noise_was_expected(
    factors: dict[str, float], name: str
) -> None:
    used = stack(name)
    found = Observer(used.robot.new_model(), used.frame_skip, (), NOISE)
    for tick, qpos, qvel, held in shaken(60, factors, used):
        found.observe(tick, qpos, qvel, held)
        if tick > 5:
            assert found.qpos.tobytes() + found.qvel.tobytes() == qpos.tobytes() + qvel.tobytes()


def test_noise_that_begins_and_ends_is_noticed() -> None:
    used, chance = stack("ant"), np.random.default_rng(6)
    found = Observer(used.robot.new_model(), used.frame_skip, (), NOISE)
    believed = []
    for tick, qpos, qvel, held in shaken(60, used=used):
        noise = 0.005 if 20 <= tick < 40 else 0.0
        read = qpos + noise * chance.standard_normal(qpos.size)
        found.observe(tick, read, qvel + 10.0 * noise * chance.standard_normal(qvel.size), held)
        believed.append(bool((found.qpos == read).all()))
    assert believed[10:20] == believed[50:] == [True] * 10
    assert believed[30:40] == [False] * 10


@pytest.mark.parametrize("spike", [1e3, 1e4, 1e8, 1e160, np.inf])
@pytest.mark.parametrize("noise", [SensorNoise(), NOISE])
def test_a_velocity_that_cannot_be_spoils_nothing(noise: SensorNoise, spike: float) -> None:
    found = Observer(CHEETAH.robot.new_model(), CHEETAH.frame_skip, NAMES, noise)
    for tick, qpos, qvel, held in shaken(100, {"mass": 1.2}):
        found.observe(tick, qpos, qvel + (spike if tick == 40 else 0.0), held)
    assert found.factors["mass"] == pytest.approx(1.2, rel=0.01)
    assert found.qvel.tobytes() == qvel.tobytes()


def test_a_model_with_a_physics_step_of_its_own_is_observed_over_a_whole_tick() -> None:
    model = CHEETAH.robot.new_model()
    model.opt.timestep = 0.005
    made = make_planner(CHEETAH, threads=1)
    assert made is not None
    guest = Guest(CHEETAH, *made, model=model)
    assert guest.observer is not None
    for tick, qpos, qvel, held in shaken(40, {"mass": 1.2}, model=model):
        guest.observer.observe(tick, qpos, qvel, held)
    assert guest.observer.factors["mass"] == pytest.approx(1.2, rel=0.02)
    guest.close()


def test_what_noise_does_not_explain_is_believed() -> None:
    found = Observer(CHEETAH.robot.new_model(), CHEETAH.frame_skip, (), NOISE)
    *before, (tick, qpos, qvel, held) = shaken(5)
    for row in before:
        found.observe(*row)
    pushed = qvel + np.array([1.0, *np.zeros(8)])
    found.observe(tick, qpos, pushed, held)
    np.testing.assert_allclose(found.qvel, pushed, atol=0.01)


@pytest.mark.parametrize("one_tick", [False, True])
def test_a_guest_plans_from_the_estimate(one_tick: bool) -> None:
    used = stack("ant", "planner.sensor_noise={position: 0.005, velocity: 0.05}")
    made = make_planner(used, threads=1)
    assert made is not None
    guest, seen = Guest(used, made[0], Budget(candidates=8)), []
    plant = DisturbedPlant(used.robot, Disturbance(position_noise=0.005), used.timestep, used.frame_skip)
    run_episode(guest, plant, EpisodeResult(4), one_tick=one_tick, steps=6, record=lambda row: seen.append(row.copy()))
    assert guest.observer is not None
    read, signals = seen[-1]["qpos"][0], guest.snapshot["signals"]
    assert made[0].uncertain
    assert 0.0 < abs(guest.observer.qpos - read).max() < 0.05
    assert np.linalg.norm(guest.observer.qpos[3:7]) == pytest.approx(1.0, abs=0.05)
    if not one_tick:
        assert signals["torso"]["height"] == guest.observer.qpos[2] == guest.snapshot["qpos"][0, 2]
    guest.close()


def test_looking_first_changes_no_answer() -> None:
    answers = []
    for first in (False, True):
        made = make_planner(CHEETAH, threads=1)
        assert made is not None
        guest = Guest(CHEETAH, made[0], Budget(candidates=8))
        signals = np.zeros(1, CHEETAH.robot.signals)
        for tick, qpos, qvel, held in shaken(6, {"mass": 1.2}):
            signals["tick"], signals["period"] = tick, CHEETAH.period
            seen = qpos, qvel, signals, held.reshape(2, 3)
            guest.answer(*(guest.observe(*seen) if first else seen))
            answers.append(guest.commands.tobytes() + b"".join(s.tobytes() for s in guest.states))
        guest.close()
    assert answers[:6] == answers[6:]


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


@pytest.mark.parametrize("noise", [0.0, 0.005])
@pytest.mark.parametrize("one_tick", [False, True])
def test_what_is_known_travels_with_the_state(one_tick: bool, noise: float) -> None:
    guests = []
    for _ in range(2):
        made = make_planner(CHEETAH, threads=1)
        assert made is not None
        guests.append(Guest(CHEETAH, made[0], Budget(candidates=8)))
    first, second = guests
    world = replace(DISTURBANCES["mass +20 %"], position_noise=noise, velocity_noise=10.0 * noise)
    run_episode(first, _plant(world), EpisodeResult(4), one_tick=one_tick, steps=24)
    assert first.observer is not None
    assert first.observer.factors["mass"] > 1.05
    second.reset(4)
    for source, target in zip(first.states, second.states, strict=True):
        target[:] = source
    plant = _plant(world)
    plant.reset(4)
    qpos, qvel = plant.state()
    signals = np.zeros(1, CHEETAH.robot.signals)
    plant.signals(signals[0])
    signals["tick"], signals["period"] = 24, CHEETAH.period
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
    ("planner.every=2", "planner.every: with an observer (identify, sensor_noise), which tells the planner something"),
    ("planner.sensor_noise={position: -1}", "planner.sensor_noise.position: -1 is outside [0, 1]"),
    ("planner.sensor_noise={angle: 1}", "planner.sensor_noise: unknown key 'angle'; valid: position, velocity"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(setting: str, message: str) -> None:
    with pytest.raises(SurefootError, match=re.escape(message)):
        make_planner(stack("half_cheetah", "planner.identify=[mass]", setting), threads=1)
