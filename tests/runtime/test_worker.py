"""A worker answers any tick from the state that came with it, and says when it failed."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.stack import load_stack
from planners.planner import Budget
from runtime.errors import SurefootError
from runtime.mailbox import FAILED, OK, Mailbox, mail_layout
from runtime.worker import Service, StackHost, WorkerSpec, load_state, run_worker

STACK = load_stack("half_cheetah-rhythm")
LAYOUT = mail_layout(STACK.robot)
SPEC = WorkerSpec(
    stack={"name": STACK.name, "document": STACK.document, "path": "half_cheetah-rhythm.yaml"}, planner="none"
)


@pytest.fixture(scope="module")
def host() -> StackHost:
    return StackHost(SPEC)


def request(tick: int, base: int = -1, state: Any = None) -> Any:
    made = np.zeros(1, LAYOUT.request)[0]
    made["tick"], made["base"], made["qpos"] = tick, base, STACK.robot.model.qpos0
    made["signals"]["tick"], made["signals"]["time"] = tick, tick * STACK.period
    if state is not None:
        made["state_size"], made["state"] = state["state_size"], state["state"]
    return made


def answers(host: StackHost, count: int) -> list[Any]:
    """A chain of answers, each from the state that the one before exported."""
    out: list[Any] = []
    for tick in range(count):
        answer = np.zeros(1, LAYOUT.answer)[0]
        host.respond(request(tick, tick - 1, out[-1] if out else None), answer)
        out.append(answer)
    return out


def test_any_worker_continues_where_another_one_stopped(host: StackHost) -> None:
    expected = answers(host, 5)
    spare = StackHost(SPEC)
    answer = np.zeros(1, LAYOUT.answer)[0]
    spare.respond(request(4, 3, expected[3]), answer)
    assert answer["commands"].tobytes() == expected[4]["commands"].tobytes()
    assert answer["state"].tobytes() == expected[4]["state"].tobytes()


def test_a_discarded_answer_never_happened(host: StackHost) -> None:
    expected = answers(host, 3)
    answer = np.zeros(1, LAYOUT.answer)[0]
    host.respond(request(3, 2, expected[2]), answer)  # late: the guard throws it away
    host.respond(request(2, 1, expected[1]), answer)
    assert answer["commands"].tobytes() == expected[2]["commands"].tobytes()


def test_each_round_of_a_planner_leaves_the_answer_of_a_budget_that_ended_there() -> None:
    planned = load_stack("ant")
    told = {"name": planned.name, "document": planned.document, "path": "ant.yaml"}
    layout = mail_layout(planned.robot)
    made = np.zeros(1, layout.request)[0]
    made["base"], made["qpos"] = -1, planned.robot.model.qpos0

    def answered(budget: int, rounds: list[Any] | None = None) -> Any:
        host = StackHost(WorkerSpec(stack=told, threads=1, lockstep=rounds is None))
        host.guest.budget = Budget(candidates=budget)
        answer = np.zeros(1, layout.answer)[0]
        host.respond(made, answer, None if rounds is None else lambda: rounds.append(answer.copy()))
        host.guest.close()
        return answer

    rounds: list[Any] = []
    full = answered(20, rounds)
    assert [int(r["finished"]) for r in rounds] == [8, 16, 20]
    for found, budget in (*zip(rounds, (8, 16, 20), strict=True), (full, 20)):
        wanted = answered(budget)
        assert found["commands"].tobytes() == wanted["commands"].tobytes()
        assert found["state"].tobytes() == wanted["state"].tobytes()


def test_the_compiled_loop_answers_like_python(host: StackHost) -> None:
    box = Mailbox.create(LAYOUT)
    service = Service(host, LAYOUT, box)
    expected = answers(host, 3)
    loop = host.native_loop(service)
    assert loop is not None
    from runtime import serve  # noqa: F401  the compiled loop's module

    for tick in range(3):
        slot = box.requests[tick % 4]
        made = request(tick, tick - 1, expected[tick - 1] if tick else None)
        for name in ("tick", "base", "qpos", "signals", "state_size", "state"):
            slot[name] = made[name]
        post(box.request_ready)
        loop()
        answer = box.answers[tick % 4]
        assert (answer["tick"], answer["status"]) == (tick, OK)
        assert answer["commands"].tobytes() == expected[tick]["commands"].tobytes()
    box.close()


def post(semaphore: int) -> None:
    import ctypes

    assert ctypes.CDLL(None).sem_post(ctypes.c_void_p(semaphore)) == 0


def test_what_fails_inside_the_guest_is_answered_as_failed(
    host: StackHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("on purpose")

    box = Mailbox.create(LAYOUT)
    service = Service(host, LAYOUT, box)
    monkeypatch.setattr(host, "respond", fail)
    service.inbox["tick"] = 9
    before = time.monotonic_ns()
    service.answer_one()
    assert (service.outbox["tick"][0], service.outbox["status"][0]) == (9, FAILED)
    assert service.outbox["done"][0] >= before
    assert "ValueError: on purpose" in capsys.readouterr().err
    box.close()


def test_a_state_of_another_stack_is_refused() -> None:
    message = np.zeros(1, LAYOUT.request)[0]
    message["state_size"] = 8
    with pytest.raises(SurefootError, match="a state of 8 bytes, where this stack has 16"):
        load_state([np.zeros(2)], message)


def test_a_worker_of_another_layout_is_refused(host: StackHost) -> None:
    box = Mailbox.create(LAYOUT)
    spec = replace(SPEC, descriptors=box.descriptors, layout=LAYOUT.key + 1)
    with pytest.raises(SurefootError, match="start both from the same code"):
        run_worker(spec, host)
    box.close()


def test_the_spec_survives_the_command_line(tmp_path: Path) -> None:
    import json

    command = replace(SPEC, descriptors=(3, 4, 5)).command()
    assert command[1:4] == ["-I", "-m", "runtime.locked"]
    again = WorkerSpec(**json.loads(command[4]))
    assert tuple(again.descriptors) == (3, 4, 5)
    assert again.stack["document"] == STACK.document
