"""The control socket answers the well-behaved and drops the others."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import control
from runtime.control import MAX_CLIENTS, MAX_REQUEST, SOCKET, ControlServer, alive, ask, find_run, runs
from runtime.errors import SurefootError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    made = ControlServer(tmp_path, {"pid": 1})
    made.handlers["status"] = lambda message: {"tick": 7}
    yield made
    made.close()


def served(server: ControlServer, folder: Path, message: dict[str, Any]) -> dict[str, Any]:
    """Asks while the server is polled elsewhere."""
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            server.poll(0.002)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return ask(folder, message)
    finally:
        done.set()
        thread.join()


def connect(folder: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(folder / SOCKET))
    return client


def test_an_ask_is_answered(server: ControlServer, tmp_path: Path) -> None:
    assert served(server, tmp_path, {"ask": "status"}) == {"tick": 7}


def test_an_unknown_ask_names_the_nearest(server: ControlServer, tmp_path: Path) -> None:
    with pytest.raises(SurefootError, match="did you mean 'status'"):
        served(server, tmp_path, {"ask": "statsu"})


@pytest.mark.parametrize(
    "garbage", [b"\n", b"\xff\xfe\x00\n", b"[]\n", b'{"ask": ["x"]}\n', b"[" * 5000 + b"\n", b"{}\n"]
)
def test_garbage_is_answered_with_one_line(server: ControlServer, tmp_path: Path, garbage: bytes) -> None:
    with connect(tmp_path) as client:
        client.sendall(garbage)
        server.poll(0.1)
        server.poll(0.1)
        answer = json.loads(client.recv(MAX_REQUEST))
        assert answer["ok"] is False
        assert "\n" not in answer["error"]


def test_a_hanging_and_a_flooding_client_delay_nobody(server: ControlServer, tmp_path: Path) -> None:
    with connect(tmp_path) as hanging, connect(tmp_path) as flooding:
        hanging.sendall(b'{"ask"')
        flooding.setblocking(False)
        for _ in range(20):
            try:
                flooding.send(b"x" * MAX_REQUEST)
            except OSError:
                break
            server.poll(0)
        assert served(server, tmp_path, {"ask": "status"}) == {"tick": 7}


def test_a_client_that_is_dropped_leaves_a_reason(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str] = []
    server.on_dropped = reasons.append
    with connect(tmp_path) as garbage, connect(tmp_path) as hanging, connect(tmp_path) as leaving:
        garbage.sendall(b"?\n" * 20)
        hanging.sendall(b'{"ask": "sta')
        leaving.sendall(b'{"ask": "status"}\n')
        for _ in range(5):
            server.poll(0.01)
        assert reasons == ["more than 8 lines that are no message"]
        monkeypatch.setattr(control, "HALF_MESSAGE", -1.0)
        server.poll(0)
    for _ in range(3):
        server.poll(0.01)
    assert reasons[1:] == ["it stopped in the middle of a message"]


def test_no_more_clients_than_allowed_are_kept(server: ControlServer, tmp_path: Path) -> None:
    clients = [connect(tmp_path) for _ in range(MAX_CLIENTS)]
    for _ in range(MAX_CLIENTS + 2):
        server.poll(0)
    with connect(tmp_path) as extra:
        server.poll(0.1)
        assert extra.recv(1) == b""
    for client in clients:
        client.close()


def test_a_dead_runs_socket_is_removed_with_a_message(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / SOCKET))
    listener.close()
    with pytest.raises(SurefootError, match="that run is dead; its socket was removed"):
        ask(tmp_path, {"ask": "status"})
    assert not (tmp_path / SOCKET).exists()
    with pytest.raises(SurefootError, match="no run is going on"):
        ask(tmp_path, {"ask": "status"})


def test_two_runs_of_one_name_are_refused(server: ControlServer, tmp_path: Path) -> None:
    with pytest.raises(SurefootError, match="is going on"):
        ControlServer(tmp_path, {})
    assert alive(tmp_path)


def test_a_deep_folder_does_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30) / ("deeper" * 20)
    folder.mkdir(parents=True)
    server = ControlServer(folder, {})
    server.handlers["status"] = lambda message: {}
    assert served(server, folder, {"ask": "status"}) == {}
    server.close()
    assert not alive(folder)


def test_living_runs_are_listed_and_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    server = ControlServer(tmp_path / "one", {"pid": 1})
    assert runs(tmp_path) == [tmp_path / "one"]
    assert find_run("one", tmp_path) == tmp_path / "one"
    with pytest.raises(SurefootError, match="no run 'three'"):
        find_run("three", tmp_path)
    server.close()
