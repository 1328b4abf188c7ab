"""Plain-Python layers: task-level modules that say `PYTHON = True` and may do what Numba cannot compile.

They are called before the planner and before the compiled step. Inside rollouts, what they last wrote is held: a
rollout copies the stack's memory, and their commands and states are part of it. So they are on the tape, travel to a
spare and replay like everything else, as long as `update` depends on its arguments alone.
"""

from __future__ import annotations

import traceback

import numpy as np
from numpy.typing import NDArray

from controllers.stack import Layer, Stack
from runtime.errors import SurefootError


class PythonLayers:
    """The plain-Python layers of a stack, over the memory of one guest."""

    def __init__(self, stack: Stack, memory: NDArray[np.void]) -> None:
        """Take views of the memory (1,), which the layers read and write in place."""
        self._layers = [x for x in stack.layers if x.module.python is not None]
        self._period = stack.period
        self._params, self._memory = stack.params.view(np.recarray)[0], memory.view(np.recarray)[0]

    def update(self, signals: NDArray[np.void]) -> None:
        """Call every layer whose turn it is.

        Args:
            signals: The signals record (1,), which the layers see a copy of.

        Raises:
            SurefootError: a layer raised; the message names its file and line.
        """
        if not self._layers:
            return
        tick = int(signals["tick"][0])
        for layer in self._layers:
            if tick % layer.every == 0 or self._memory.ticks == 0:
                self._call(layer, signals)

    def _call(self, layer: Layer, signals: NDArray[np.void]) -> None:
        assert layer.module.python is not None
        seen = signals.copy()
        seen["period"] = self._period * layer.every
        p, s = getattr(self._params, layer.slot), getattr(self._memory, layer.slot)
        try:
            with np.errstate(all="ignore"):  # as in compiled layers: what is not finite is caught further down
                layer.module.python(p, s, seen.view(np.recarray)[0], self._memory.commands)
        except Exception as error:
            path = str(layer.module.path)
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
            raise SurefootError(f"{path}:{lines[-1] if lines else '?'}: {type(error).__name__}: {error}") from None
