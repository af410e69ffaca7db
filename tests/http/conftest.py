"""A server on loopback that misbehaves as it is told, connection by connection, byte by byte."""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from evomerge.http import client as client_module


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Way = Callable[[socket.socket, Request], None]


def reply(status: int = 200, body: bytes = b"{}", **headers: object) -> Way:
    """A whole answer."""

    def answer(connection: socket.socket, request: Request) -> None:
        connection.sendall(head(status, len(body), **headers) + body)

    return answer


def head(status: int, length: int, **headers: object) -> bytes:
    """The lines before a body."""
    lines = [f"HTTP/1.1 {status} word", f"content-length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def hang_up(connection: socket.socket) -> None:
    """Close at once, though files of the connection are open."""
    os.close(connection.detach())
    raise ConnectionError


def reset(connection: socket.socket, request: Request) -> None:
    """Gone, with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hang_up(connection)


def cut_off(connection: socket.socket, request: Request) -> None:
    """Half of what was announced."""
    connection.sendall(head(200, 100) + b'{"half": ')
    hang_up(connection)


def drip(connection: socket.socket, request: Request) -> None:
    """A body whose bytes come one by one, so that no single wait is long."""
    connection.sendall(head(200, 1000))
    for _ in range(1000):
        connection.sendall(b" ")
        time.sleep(0.02)


def drip_head(connection: socket.socket, request: Request) -> None:
    """The same with the lines before the body."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
    for _ in range(1000):
        connection.sendall(b"x")
        time.sleep(0.02)


def twice(body: bytes) -> Way:
    """The same answer two times, the second as if it were that to the next request."""

    def answer(connection: socket.socket, request: Request) -> None:
        connection.sendall((head(200, len(body)) + body) * 2)

    return answer


def noise(connection: socket.socket, request: Request) -> None:
    """No HTTP at all."""
    connection.sendall(b"\x00\xff ssh-2.0 what?\r\n\r\n")
    hang_up(connection)


class Server(socketserver.ThreadingTCPServer):
    """Goes through ``script``, request by request; ``otherwise`` is for all further ones."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: deque[Way] = deque()
        self.otherwise: Way = reply()
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what these tests are about."""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        while (request := self._read()) is not None:
            with server.lock:
                server.requests.append(request)
                way = server.script.popleft() if server.script else server.otherwise
            way(self.connection, request)

    def _read(self) -> Request | None:
        first = self.rfile.readline().decode().split()
        if len(first) != 3:
            return None
        headers: dict[str, str] = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Request(first[0], first[1], headers, self.rfile.read(int(headers.get("content-length", 0))))


@dataclass
class Ways:
    """The ways above, for tests."""

    reply: Callable[..., Way] = field(default=reply)
    twice: Callable[[bytes], Way] = field(default=twice)
    reset: Way = field(default=reset)
    cut_off: Way = field(default=cut_off)
    drip: Way = field(default=drip)
    drip_head: Way = field(default=drip_head)
    noise: Way = field(default=noise)


@pytest.fixture
def ways() -> Ways:
    return Ways()


@pytest.fixture
def servers() -> Iterator[Callable[[], Server]]:
    """Starts servers."""
    running: list[Server] = []

    def start() -> Server:
        running.append(Server())
        threading.Thread(target=running[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(servers: Callable[[], Server]) -> Server:
    return servers()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long between attempts."""
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(client_module, "LONGEST_WAIT", 0.05)
