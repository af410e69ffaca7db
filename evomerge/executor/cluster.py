"""Starting a Ray of our own, or joining a standing cluster, with errors that say what to do.

Ray's own ways, met here: it retries a dead address for minutes (so the port is tried first and the connect bounded);
a cluster asks for a token by default, and without it says only that it cannot connect; a request for resources that
no node has waits for ever (so places are counted first); ``ray stop`` ends every Ray on the machine (so it is never
called, only ``ray.shutdown`` by whoever did the ``init``).
"""

from __future__ import annotations

import logging
import math
import os
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable
from typing import Any

from evomerge.errors import ConfigError, ExecutorError

PROBE_SECONDS = 5.0
CONNECT_SECONDS = 60.0
OBJECT_STORE_BYTES = 128 * 2**20  # nothing but small records goes through it
TOKEN_HELP = (
    "a cluster with token authentication (Ray's default since 2.59) needs RAY_AUTH_MODE=token and its token in "
    "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH on every machine"
)


class Cluster:
    """A connection to Ray. One that this process already has is used as it is, and left as it is."""

    def __init__(self, address: str | None, workers: int, cpus: float, gpus: float) -> None:
        self.ray = _import_ray()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._owned = not self.ray.is_initialized()
        if self._owned:
            if address is None:
                self._start(workers, cpus)
            else:
                _join(self.ray, address)
        try:
            self._require(workers, cpus, gpus)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave Ray, and end it if it was started here. Safe to call twice."""
        if self._owned:
            self._owned = False
            self.ray.shutdown()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self, workers: int, cpus: float) -> None:
        """A Ray of our own with as many places as there are workers: more workers than cores is the user's choice."""
        self._folder = tempfile.TemporaryDirectory(prefix="evomerge-ray-", ignore_cleanup_errors=True)
        places = max(1, math.ceil(workers * cpus))
        try:
            _init(
                self.ray,
                address="local",
                num_cpus=places,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                _temp_dir=self._folder.name,
            )
        except (OSError, RuntimeError, ValueError, ConnectionError) as error:
            self._folder.cleanup()
            raise ExecutorError(
                f"cannot start Ray on this machine: {error}; it needs a writable {self._folder.name} and home "
                "(or a token of your choice in RAY_AUTH_TOKEN), or use the inline executor"
            ) from error

    def _require(self, workers: int, cpus: float, gpus: float) -> None:
        """Refuse what would wait for ever.

        Raises:
            ExecutorError: fewer places than workers.
        """
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        places = sum(_places(node, cpus, gpus, workers) for node in nodes)
        if places < workers:
            have = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes) or "no node"
            raise ExecutorError(
                f"{workers} workers with {cpus:g} CPU and {gpus:g} GPU each need more than Ray has ({have}): room for "
                f"{places}; lower executor.workers, executor.cpus or executor.gpus"
            )


def _places(node: dict[str, float], cpus: float, gpus: float, most: int) -> int:
    """How many workers fit on a node."""
    wants = [(node.get("CPU", 0.0), cpus), (node.get("GPU", 0.0), gpus)]
    return min([most, *(math.floor(have / want + 1e-9) for have, want in wants if want > 0)])


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray starts: nothing leaves this machine
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # read on import: no notices amid our standard output
    try:
        import ray
    except ImportError as error:
        raise ExecutorError("the ray executor needs Ray: pip install 'evomerge[ray]', or use inline") from error
    return ray


def _init(ray: Any, **options: Any) -> None:
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)  # tips and notices; what goes wrong is raised
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **options)
    finally:
        logger.setLevel(level)


def _join(ray: Any, address: str) -> None:
    host, port = _parse(address)
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise ExecutorError(
            f"no Ray cluster answers at {address} ({error}); check executor.ray_address and that the head node runs"
        ) from error
    failure = _bounded(lambda: _init(ray, address=address), CONNECT_SECONDS)
    if failure is not None:
        raise ExecutorError(f"cannot join the Ray cluster at {address}: {failure}; {TOKEN_HELP}") from failure


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ConfigError(
            f"executor.ray_address is {address!r}; write HOST:PORT of the head node, such as 10.0.0.5:6379"
        )
    return host.strip("[]"), int(port)


def _bounded(call: Callable[[], None], seconds: float) -> Exception | None:
    """What ``call`` raised, or a `TimeoutError`: Ray has no limit of its own on connecting."""
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            call()
        except Exception as error:  # whatever Ray raises is passed on by the caller
            failures.append(error)

    thread = threading.Thread(target=attempt, name="ray-connect", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return TimeoutError(f"no connection within {seconds:g} s")
    return failures[0] if failures else None
