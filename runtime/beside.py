"""A planner beside the layers: the plan begun at tick k takes effect at tick k + every, whenever it is ready before.

The layers answer every tick with the residual in force. At each multiple of `every`, the plan that was begun one round
ago comes into force, and the next one is begun: from the state that the stack's own model predicts for the tick in
which it will take effect. A plan that is not ready by then is dropped as if it had never been begun, so that a run is a
function of which plans made it, and replays.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from planners.planner import Budget, Decision, Planner


class Beside:
    """Runs one planner at a fraction of the stack's rate.

    Attributes:
        plan: The plan that the next round starts from (horizon, nu).
        residual: The residual in force (nu,).
        begun: Tick at which the last plan was begun (1,), -1 for none.
        since: Tick from which the residual is in force (1,). These four are its state between ticks.
    """

    def __init__(self, planner: Planner) -> None:
        """Takes a planner; each plan is made within the call that begins it until `start_thread`."""
        self.planner = planner
        self.plan = planner.plan.copy()
        self.residual = np.zeros(planner.plan.shape[1])
        self.begun = np.full(1, -1, np.int64)
        self.since = np.zeros(1, np.int64)
        self._pool: ThreadPoolExecutor | None = None
        self._job: tuple[int, Future[Decision]] | None = None

    def start_thread(self) -> None:
        """Plans in a thread from now on, while the layers answer."""
        self._pool = ThreadPoolExecutor(1, "planner")

    def reset(self) -> None:
        """An episode begins: no plan, none under way."""
        self._finish()
        self.plan[:] = 0.0
        self.residual[:] = 0.0
        self.begun[:] = -1
        self.since[:] = 0

    def tick(self, snapshot: NDArray[np.void], budget: Budget | None) -> Decision | None:
        """Takes part in one tick; call it before the layers step.

        Args:
            snapshot: State, signals and memory (1,) at the tick's start.
            budget: Of the plan to begin; None begins none.

        Returns:
            The decision that came into force in this tick, or None.
        """
        tick = int(snapshot["signals"]["tick"][0])
        if tick % self.planner.every:
            return None
        decision = self._collect(tick)
        if decision is not None:
            self.residual[:] = decision.residual
            self.plan[:] = self.planner.plan
            self.since[0] = tick
        if self._job is None and budget is not None:
            self._begin(tick, snapshot, budget)
        return decision

    def _collect(self, tick: int) -> Decision | None:
        """Returns the plan due at `tick`, if it was begun in an answer that counted and is ready."""
        if self._job is None or not self._job[1].done():
            return None
        begun, job = self._job
        self._job = None
        due = begun == self.begun[0] == tick - self.planner.every
        return job.result() if due else None

    def _begin(self, tick: int, snapshot: NDArray[np.void], budget: Budget) -> None:
        self.begun[0] = tick
        arguments = (snapshot.copy(), self.plan.copy(), self.residual.copy(), budget)
        if self._pool is not None:
            self._job = (tick, self._pool.submit(self._make, *arguments))
            return
        done: Future[Decision] = Future()
        done.set_result(self._make(*arguments))
        self._job = (tick, done)

    def _make(
        self, snapshot: NDArray[np.void], plan: NDArray[np.float64], residual: NDArray[np.float64], budget: Budget
    ) -> Decision:
        """Plans from where the robot will be when the plan takes effect, under the residual in force until then."""
        rollouts = self.planner.rollouts
        rollouts.run(snapshot, residual[None, None, :], horizon=1, final=False)
        ahead = rollouts.end[:1].copy()
        self.planner.plan[:] = plan
        return self.planner.decide(ahead, budget)

    def _finish(self) -> None:
        """Waits for a plan under way, and forgets it."""
        if self._job is not None:
            self._job[1].result()
            self._job = None

    def close(self) -> None:
        """Ends the thread."""
        self._finish()
        if self._pool is not None:
            self._pool.shutdown()
