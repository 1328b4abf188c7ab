"""The control socket of a run: a Unix-domain socket in its folder, one JSON object a line each way.

Messages, each answered by `{"ok": true, ...}` or `{"ok": false, "error": "one line"}`:

    {"ask": "status"}        where the run stands: name, pid, stack, tick, episode, mode, misses, seats, degraded
    {"ask": "statistics"}    counters of guard, tape and workers
    {"ask": "stop"}          hold the posture until still, then end the run

Other parts of the runtime add asks of their own (`ControlServer.handlers`). A client that hangs, floods or sends
garbage is dropped; it never delays another one, and the loop does not know that it exists.
"""

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import SurefootError, nearest

SOCKET = "control.sock"
CARD = "run.json"  # what a run says about itself: pid, stack, when it began
MAX_REQUEST = 65536  # bytes of one message
MAX_CLIENTS = 16
IDLE = 30.0  # [s] after which a silent client is dropped
HALF_MESSAGE = 2.0  # [s] that the rest of a message may take
MAX_GARBAGE = 8  # lines that are no message, from one client

Handler = Callable[[dict[str, Any]], dict[str, Any]]


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """Yields a path of the socket that fits into the 108 bytes which the kernel allows, however deep the folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


@dataclass
class _Client:
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    since: float = field(default_factory=time.monotonic)
    garbage: int = 0


class ControlServer:
    """Answers clients whenever it is polled; never blocks longer than asked."""

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        """Opens the socket in a run's folder and writes its card there.

        Raises:
            SurefootError: A living run answers in this folder already.
        """
        self.handlers: dict[str, Handler] = {}
        self.on_dropped: Callable[[str], None] = lambda reason: None
        """Called with why a client was dropped, unless it went by itself."""
        self._folder = folder
        self._clients: dict[socket.socket, _Client] = {}
        if alive(folder):
            raise SurefootError(f"{folder}: a run with this name is going on (`surefoot status {folder.name}`)")
        (folder / SOCKET).unlink(missing_ok=True)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short_path(folder) as path:
            self._listener.bind(path)
        os.chmod(folder / SOCKET, 0o600)
        self._listener.listen(MAX_CLIENTS)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        scratch = folder / f"{CARD}.tmp"
        scratch.write_text(json.dumps(card, indent=2) + "\n")
        os.replace(scratch, folder / CARD)

    def poll(self, timeout: float) -> None:
        """Serves what there is, waiting at most `timeout` [s] for it."""
        for key, events in self._selector.select(timeout):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if connection is self._listener:
                self._accept()
                continue
            try:
                if events & selectors.EVENT_READ:
                    self._read(connection)
                if events & selectors.EVENT_WRITE and connection in self._clients:
                    self._write(connection)
            except OSError:
                self._drop(connection)
        for connection, client in list(self._clients.items()):
            silent = time.monotonic() - client.since
            if silent > (HALF_MESSAGE if client.received else IDLE):
                self._drop(connection, "it stopped in the middle of a message" if client.received else "it was silent")

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        self._clients[connection] = _Client()
        self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> None:
        client = self._clients[connection]
        data = connection.recv(MAX_REQUEST)
        if not client.received:
            client.since = time.monotonic()
        client.received += data
        if not data or len(client.received) > MAX_REQUEST:
            self._drop(connection, f"a message of more than {MAX_REQUEST} bytes" if data else "")
            return
        while b"\n" in client.received:
            line, _, rest = bytes(client.received).partition(b"\n")
            client.received = bytearray(rest)
            answer = self._answer(line)
            client.garbage += answer.pop("garbage", 0)
            client.unsent += (json.dumps(answer) + "\n").encode()
            client.since = time.monotonic()
        if client.garbage > MAX_GARBAGE:
            self._drop(connection, f"more than {MAX_GARBAGE} lines that are no message")
        elif len(client.unsent) > 16 * MAX_REQUEST:
            self._drop(connection, "it asks and does not read")
        elif client.unsent:
            self._write(connection)

    def _write(self, connection: socket.socket) -> None:
        client = self._clients[connection]
        try:
            sent = connection.send(client.unsent)
            del client.unsent[:sent]
        except BlockingIOError:
            pass
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(connection, wanted)

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
            ask = message["ask"]
            if ask not in self.handlers:
                raise SurefootError(f"unknown ask {ask!r}; {nearest(str(ask), self.handlers)}")
            return {"ok": True, **self.handlers[ask](message)}
        except SurefootError as error:
            return {"ok": False, "error": str(error)}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            expected = f'expected one line such as {{"ask": "status"}} ({type(error).__name__})'
            return {"ok": False, "garbage": 1, "error": expected}

    def _drop(self, connection: socket.socket, reason: str = "") -> None:
        if reason:
            self.on_dropped(reason)
        self._clients.pop(connection, None)
        self._selector.unregister(connection)
        connection.close()

    def close(self) -> None:
        """Closes the socket and removes it."""
        for connection in list(self._clients):
            self._drop(connection)
        self._selector.close()
        self._listener.close()
        (self._folder / SOCKET).unlink(missing_ok=True)


def ask(folder: Path, message: dict[str, Any], timeout: float = 5.0) -> dict[str, Any]:
    """Sends one message to the run in `folder` and returns its answer.

    Raises:
        SurefootError: Nobody answers there, or the run refused.
    """
    if not (folder / SOCKET).exists():
        raise SurefootError(f"{folder}: no run is going on here (no {SOCKET})")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short_path(folder) as path:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall((json.dumps(message) + "\n").encode())
            answer = json.loads(connection.makefile("rb").readline())
    except ConnectionRefusedError:
        (folder / SOCKET).unlink(missing_ok=True)
        raise SurefootError(f"{folder}: that run is dead; its socket was removed") from None
    except (OSError, ValueError) as error:
        raise SurefootError(f"{folder}: the run does not answer ({error or type(error).__name__})") from None
    if not answer.pop("ok"):
        raise SurefootError(f"{folder}: {answer['error']}")
    return dict(answer)


def alive(folder: Path) -> bool:
    """Returns whether somebody listens on the folder's socket."""
    if not (folder / SOCKET).exists():
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short_path(folder) as path:
            connection.settimeout(1.0)
            connection.connect(path)
            return True
    except OSError:
        return False


def runs(store: Path) -> list[Path]:
    """Returns the folders under `store` whose run is alive, sockets of dead runs removed."""
    found = []
    for path in sorted(store.glob(f"*/{SOCKET}")):
        if alive(path.parent):
            found.append(path.parent)
        else:
            path.unlink(missing_ok=True)
    return found


def find_run(name: str, store: Path = Path("runs")) -> Path:
    """Returns the folder of a run, given by name or by path.

    Raises:
        SurefootError: There is no such folder.
    """
    for folder in (Path(name), store / name):
        if folder.is_dir() and any((folder / mark).exists() for mark in (CARD, SOCKET, "config.yaml")):
            return folder
    valid = [p.parent.name for p in store.glob("*/config.yaml")]
    raise SurefootError(f"no run {name!r} here or in {store}/; {nearest(name, valid) if valid else 'there are none'}")
