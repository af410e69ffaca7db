"""Real pool servers on loopback, over the demo's two digit classifiers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from evomerge.serve.app import application
from evomerge.serve.ledger import Ledger
from evomerge.serve.opened import Opened, open_pool, read
from evomerge.serve.run import Address, listen, server
from evomerge.serve.service import Service
from evomerge.serve.tokens import Tokens, add
from evomerge_fitness.digits import train_seeds

SERVER = """\
pool: {members: {low: models/low, high: models/high}}
fitness: {name: arrays, data: digits}
splits: {search: "0:400", selection: "1437:1500", report: "1617:1700"}
"""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models and server.yaml."""
    folder = tmp_path_factory.mktemp("pool")
    train_seeds(folder / "models")
    (folder / "server.yaml").write_text(SERVER)
    return folder


@pytest.fixture(scope="session")
def opened(home: Path) -> Opened:
    """The served pool, opened once."""
    file = read(home / "server.yaml")
    return open_pool(file.settings, file.root)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    url: str
    audit: Path
    token: str | None
    service: Service

    def client(self, token: str | None = "own") -> httpx.Client:
        """A plain client of it; other ``token`` s are sent as they are, none if ``None``."""
        token = self.token if token == "own" else token
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def ask(self, **question: Any) -> httpx.Response:
        """One question, by a client of its own."""
        with self.client() as client:
            return client.post("/v1/score", json=question)


Serve = Callable[..., Running]


@pytest.fixture
def serve(opened: Opened, tmp_path: Path) -> Iterator[Serve]:
    """Starts servers: ``tokens`` wants one of holder alice, with her ``quota``; other settings are those of limits."""
    ends: list[Callable[[], None]] = []

    def start(pool: Opened = opened, *, tokens: bool = False, quota: Any = None, **limits: Any) -> Running:
        settings = replace(pool.settings, limits=replace(pool.settings.limits, **limits))
        pool = replace(pool, settings=settings)
        token = add(tmp_path / "tokens.json", "alice", **(quota or {})) if tokens else None
        audit = tmp_path / "audit.jsonl"
        service = Service(pool, Ledger(audit, settings.limits.evaluations, settings.limits.items))
        socket = listen(Address(port=0))
        holders = Tokens(tmp_path / "tokens.json") if tokens else None
        run = server(application(service, holders), Address(), grace=5)
        thread = threading.Thread(target=run.run, kwargs={"sockets": [socket]})
        thread.start()
        while not run.started:
            time.sleep(0.005)

        def end() -> None:
            run.should_exit = True
            thread.join()
            service.close()
            socket.close()

        ends.append(end)
        return Running(f"http://127.0.0.1:{socket.getsockname()[1]}", audit, token, service)

    yield start
    for end in ends:
        end()
