"""Full-state feedback takes over from tracking with speed, and is a plain matrix product."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from controllers.joint.state_feedback import Params
from controllers.stack import Stack, build_stack

TORSO = ("height", "roll", "pitch", "yaw", "vx", "vy", "vz", "roll_rate", "pitch_rate", "yaw_rate")
GAIN, KP, LOW, HIGH = 0.7, 1.5, 1.0, 3.0


def law(rng: np.random.Generator) -> dict[str, np.ndarray]:
    joint, pair = (4, 2), (4, 2, 4, 2)
    return {name: rng.normal(scale=0.1, size=pair if name in ("position", "velocity", "target") else joint)
            for name in (*TORSO, "offset", "position", "velocity", "target")}  # fmt: skip


def stack(gains: dict[str, np.ndarray]) -> Stack:
    document = f"""
        robot: ant
        rate: 20 Hz
        layers: {{joint: {{use: state_feedback, kp: {KP}, low: {LOW}, high: {HIGH}, gain: {GAIN}}}}}
        """
    read = yaml.safe_load(document)
    read["layers"]["joint"] |= {name: value.tolist() for name, value in gains.items()}
    return build_stack("law", read, Path("law.yaml"))


@pytest.fixture(scope="module")
def gains() -> dict[str, np.ndarray]:
    return law(np.random.default_rng(0))


@pytest.fixture(scope="module")
def made(gains: dict[str, np.ndarray]) -> Stack:
    return stack(gains)


def control(made: Stack, signals: np.ndarray, target: np.ndarray) -> np.ndarray:
    memory = made.initial.copy()
    memory["commands"]["limb"]["target"] = target
    made.tick(made.params, memory, signals, np.zeros(1, made.robot.residual))
    return np.asarray(memory["commands"]["joint"]["control"][0])


@pytest.mark.parametrize(("speed", "share"), [(0.5, 0.0), (2.0, 0.5), (3.0, 1.0), (9.0, 1.0)])
def test_it_is_a_matrix_product_that_takes_over_with_speed(
    made: Stack, gains: dict[str, np.ndarray], speed: float, share: float
) -> None:
    rng = np.random.default_rng(1)
    signals = np.zeros(1, made.robot.signals)
    for name in TORSO:
        signals["torso"][name] = rng.normal(scale=0.3)
    signals["torso"]["vx"] = speed
    q, qd, target = rng.normal(scale=0.3, size=(3, 4, 2))
    signals["joint"]["position"], signals["joint"]["velocity"] = q, qd
    feedback = gains["offset"] + sum(gains[name] * signals["torso"][name][0] for name in TORSO)
    for name, value in (("position", q), ("velocity", qd), ("target", target)):
        feedback = feedback + (gains[name].reshape(8, 8) @ value.ravel()).reshape(4, 2)
    tracking = np.clip(KP * (target - q), -1, 1)
    expected = tracking + share * (np.clip(GAIN * feedback, -1, 1) - tracking)
    np.testing.assert_allclose(control(made, signals, target), expected, rtol=0, atol=1e-12)


def test_a_lost_signal_is_nan_in_every_control_that_feels_it(made: Stack) -> None:
    signals = np.zeros(1, made.robot.signals)
    signals["torso"]["vx"] = 5.0
    signals["joint"]["velocity"][0, 1, 1] = np.nan
    assert np.isnan(control(made, signals, np.zeros((4, 2)))).all()


def test_every_signal_has_a_gain() -> None:
    assert {*TORSO, "position", "velocity", "target"} < set(Params.__dataclass_fields__)
