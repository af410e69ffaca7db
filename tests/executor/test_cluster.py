from __future__ import annotations

import socket
from threading import Event

import pytest

from evomerge.errors import ConfigError, ExecutorError
from evomerge.executor import cluster
from evomerge.executor.cluster import Cluster


class NoRay:
    """Stands in for a process that has no Ray yet."""

    @staticmethod
    def is_initialized() -> bool:
        return False


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_import_ray", NoRay)


@pytest.mark.parametrize("address", ["nonsense", "ray://head:10001", "head:", ":6379", "head:port"])
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(ConfigError, match="write HOST:PORT of the head node"):
        Cluster(address, 1, 1.0, 0.0)


def test_a_dead_address_is_known_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        with pytest.raises(ExecutorError, match="no Ray cluster answers at"):
            Cluster(f"127.0.0.1:{taken.getsockname()[1]}", 1, 1.0, 0.0)


def test_connecting_is_bounded_and_names_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Event()
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(cluster, "_init", lambda ray, **options: release.wait())
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ExecutorError, match=r"no connection within 0\.2 s.*RAY_AUTH_TOKEN"):
            Cluster(address, 1, 1.0, 0.0)
    release.set()
