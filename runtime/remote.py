"""A guest in a locked process, driven in lockstep: to be used in `run_episode` wherever a `Guest` would be."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.stack import Stack
from runtime.carry import state_key
from runtime.guest import Predictor, Work
from runtime.mailbox import OK, SLOTS, STATE_BYTES, copy_message, head_bytes, mail_layout, wait_until
from runtime.recruit import GuestFailed, Recruit
from runtime.sandbox import Level, Limits
from runtime.versions import Version, stack_versions
from runtime.worker import WorkerSpec

SLICE = 50_000_000  # [ns] between two looks at whether the guest still lives
STEP = 0.005  # [s] between two looks at how far its start has come


class RemoteGuest:
    """A stack with other versions in some of its slots, behind a sandbox.

    Attributes:
        stack: The base, trusted.
        loaded: Slot -> hash that the worker reported before anything of the guest had run.
        level: The sandbox that it is in.
        first_answer_s: Time from its start until it was warm, the first answer given [s].
    """

    def __init__(
        self,
        stack: Stack,
        versions: Mapping[str, Version] | None = None,
        *,
        planner: str | None = None,
        budget: str | None = None,
        threads: int = 1,
        limits: Limits | None = None,
        start_deadline: float = 60.0,
        answer_deadline: float = 10.0,
        boundscheck: bool = False,
    ) -> None:
        """Starts the worker and waits until it is warm.

        Args:
            stack: The base stack, whose own layers fill the other slots.
            versions: Slot -> version.
            planner: Planner; default: the stack's own.
            budget: Its budget, as on the command line; default: the stack's own.
            threads: Its threads.
            limits: What the worker may use.
            start_deadline: After which a worker that is not warm is killed [s].
            answer_deadline: After which a guest that has not answered is killed [s].
            boundscheck: Whether an index out of bounds fails the answer.

        Raises:
            GuestFailed: It did not get warm; `stage` is load, compile or warm-up.
        """
        self.stack = stack
        self._layout = mail_layout(stack.robot)
        self._deadline = round(answer_deadline * 1e9)
        self._predictor = Predictor(stack)
        spec = WorkerSpec(
            stack={"name": stack.name, "document": stack.document, "path": f"{stack.name}.yaml"},
            planner=planner, budget=budget, threads=threads, fifo=False, lockstep=True, boundscheck=boundscheck,
        )  # fmt: skip
        begun = time.monotonic()
        filled = stack_versions(stack) | dict(versions or {})
        self.worker = Recruit(spec, filled, limits or Limits(), self._layout)
        self._request, self._answer = np.zeros(1, self._layout.request), np.zeros(1, self._layout.answer)
        self._request["state_key"] = state_key(filled)
        self._heads = head_bytes(self._layout.request), head_bytes(self._layout.answer)
        self._spec = np.zeros(2, np.int64)
        self._serial = 0
        try:
            while not self.worker.ready:
                self.worker.poll()
                if time.monotonic() - begun > start_deadline:
                    raise GuestFailed(f"past its deadline of {start_deadline:g} s", self.worker.stage)
                time.sleep(STEP)
        except BaseException:
            self.close()
            raise
        self.loaded, self.level = self.worker.loaded, self.worker.level or Level.NONE
        self.first_answer_s = time.monotonic() - begun
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begins an episode: the guest forgets everything, and draws its planner's noise from this seed."""
        self._request["base"], self._request["seed"], self._request["state_size"] = -1, seed, 0

    @property
    def plan_age(self) -> int:
        """Ticks since the plan behind the last answer took effect."""
        return int(self._answer["plan_age"][0])

    @property
    def commands(self) -> Any:
        """The commands record of every level, as of the last answer."""
        return self._answer["commands"][0]

    @property
    def state(self) -> bytes:
        """All that the guest remembers after its last answer."""
        return self._request["state"][0, : int(self._request["state_size"][0])].tobytes()

    def resume(self, state: bytes) -> None:
        """Continues from a state that this stack exported, in this process or another one."""
        self._request["state"][0, : len(state)] = np.frombuffer(state, np.uint8)
        self._request["state_size"], self._request["base"] = len(state), 0

    def answer(
        self, qpos: NDArray[Any], qvel: NDArray[Any], signals: NDArray[Any], sent: NDArray[Any]
    ) -> Work:  # fmt: skip
        """Has the guest decide on a plant state; see `Guest.answer`. What it answers need not be finite.

        Raises:
            GuestFailed: It ended, was silent for longer than its deadline, failed, or answered out of turn.
        """
        request, answer, box = self._request, self._answer, self.worker.box
        self._serial += 1
        request["tick"], request["qpos"], request["qvel"], request["sent"] = self._serial, qpos, qvel, sent
        request["signals"] = signals
        head, slot = self._heads[0], self._serial % SLOTS
        stride = self._layout.request.itemsize
        size = int(request["state_size"][0])
        copy_message(box.requests.ctypes.data + slot * stride, request.ctypes.data, head, size)
        box.post_request()
        self._wait()
        stride = self._layout.answer.itemsize
        source = box.answers.ctypes.data + slot * stride
        copy_message(answer.ctypes.data, source, self._heads[1], int(box.answers[slot]["state_size"]))
        self._check(answer[0])
        size = int(answer["state_size"][0])
        request["state"][0, :size], request["state_size"], request["base"] = answer["state"][0, :size], size, 0
        return Work(int(answer["finished"][0]), int(answer["work"][0]))

    def _wait(self) -> None:
        end = time.monotonic_ns() + self._deadline
        while True:
            now = time.monotonic_ns()
            if wait_until(self.worker.box.answer_ready, min(end, now + SLICE), self._spec):
                return
            if self.worker.child.returncode is not None:
                raise GuestFailed(self.worker.last_words())
            if now >= end:
                self.worker.child.kill()
                raise GuestFailed(f"no answer within its deadline of {self._deadline * 1e-9:g} s")

    def _check(self, answer: Any) -> None:
        if answer["status"] != OK:
            raise GuestFailed(f"failed: {self.worker.last_line()}")
        if answer["tick"] != self._serial:
            raise GuestFailed(f"answered tick {answer['tick']} when asked for {self._serial}")
        size = int(answer["state_size"])
        if answer["layout"] != self._layout.key or answer["size"] != self._heads[1] or not 0 <= size <= STATE_BYTES:
            raise GuestFailed("answered with a message of another size")

    def predict(
        self, qpos: NDArray[Any], qvel: NDArray[Any], signals: NDArray[Any], sent: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """What to answer one tick ahead; see `Guest.predict`."""
        return self._predictor.predict(qpos, qvel, signals, sent)

    def close(self) -> None:
        """Kills the worker."""
        self.worker.close()

    def __enter__(self) -> "RemoteGuest":
        """Return self."""
        return self

    def __exit__(self, *error: object) -> None:
        """Kill the worker."""
        self.close()
