"""Guests in the tests' own process, which answer as a worker does; what a sandbox adds is tested where it lives."""

from pathlib import Path

import numpy as np

from agent_bridge.gate.workers import GuestSpec
from planners.planner import make_planner
from runtime.guest import Guest
from runtime.recruit import GuestFailed
from runtime.versions import load_versions


class LocalGuest(Guest):
    """A `Guest` with what the gate asks of a `RemoteGuest` beside."""

    level = "none"
    first_answer_s = 0.0

    def __init__(self, spec: GuestSpec) -> None:
        versions = dict(spec.versions)
        try:
            stack = load_versions(spec.stack, dict(spec.document), Path(spec.path), versions)
        except Exception as error:
            raise GuestFailed(str(error), "load") from None
        super().__init__(stack, *(make_planner(stack, spec.planner, None, 1) or (None, None)))
        self.loaded = {slot: version.hash for slot, version in versions.items()}

    @property
    def state(self) -> bytes:
        return b"".join(array.tobytes() for array in self.states)

    def resume(self, state: bytes) -> None:
        for array in self.states:
            array[...] = np.frombuffer(state[: array.nbytes], array.dtype).reshape(array.shape)
            state = state[array.nbytes :]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
