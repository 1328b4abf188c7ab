"""A controller's NaN reaches the guard's check as NaN; it does not become full torque on the way."""

import numpy as np

from controllers.stack import load_stack


def test_nan_in_a_signal_is_nan_in_the_control() -> None:
    stack = load_stack("half_cheetah-rhythm")
    signals, memory = np.zeros(1, stack.robot.signals), stack.initial.copy()
    signals["joint"]["position"][0, 1, 2] = np.nan
    stack.tick(stack.params, memory, signals, np.zeros(1, stack.robot.residual))
    control = memory["commands"]["joint"]["control"][0]
    assert np.isnan(control[1, 2])
    assert np.isfinite(np.delete(control.ravel(), 5)).all()
