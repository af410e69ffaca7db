from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.candidate import Score
from evomerge.errors import ExecutorError
from evomerge.executor.cluster import Cluster
from evomerge.executor.port import Ancestry, Executor, Factory
from evomerge.executor.ray import RayExecutor
from evomerge.testing.executor import ExecutorContract
from evomerge.testing.misbehaving import FakeFactory, fake_task

pytestmark = pytest.mark.ray


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[Cluster]:
    """One Ray for all tests here: an executor uses what its process already has, and leaves it alone."""
    cluster = Cluster(None, 4, 1.0, 0.0)
    yield cluster
    cluster.close()


class TestRay(ExecutorContract):
    def make(self, factory: Factory, ancestry: Ancestry, **options: Any) -> Executor:
        return RayExecutor(factory, ancestry, workers=2, **options)


def ask(factory: Factory, **options: Any) -> RayExecutor:
    return RayExecutor(factory, lambda recipe, known: (), **options)


# Made inside functions, so that they travel by value: workers cannot import a test module.


def dies_at_birth() -> Factory:
    def factory() -> Any:
        os._exit(1)

    return factory


def says_threads() -> Factory:
    def factory() -> Any:
        threads = float(os.environ["OMP_NUM_THREADS"])  # read here, where a library would read it
        return lambda task, ancestors: Score((("threads", threads),))

    return factory


def large_scores() -> Factory:
    def factory() -> Any:
        return lambda task, ancestors: Score((("score", 0.5),), losses=np.ones(100_000))

    return factory


def test_refuses_what_no_node_has(tmp_path: Path) -> None:
    for options in ({"workers": 99}, {"workers": 1, "gpus": 100.0}, {"workers": 1, "cpus": 5.0}):
        with pytest.raises(ExecutorError, match=r"need more than Ray has \(4 CPU.*lower executor\.workers"):
            ask(FakeFactory(tmp_path), **options)


def test_workers_that_cannot_start_stop_everything(tmp_path: Path) -> None:
    events: list[Any] = []
    with ask(dies_at_birth(), workers=2, on_event=lambda *event: events.append(event)) as executor:
        executor.submit(fake_task(0))
        with pytest.raises(ExecutorError, match="3 workers in a row died before they were ready"):
            executor.next(60.0)
    assert len(events) == 3


def test_threads_are_said_before_the_factory_is_opened() -> None:
    with ask(says_threads(), workers=1, threads=3) as executor:
        executor.submit(fake_task(0))
        evaluated = executor.next(60.0)
        assert evaluated is not None
        assert evaluated.score is not None
        assert evaluated.score["threads"] == 3.0


def test_large_scores_outlive_the_executor() -> None:
    with ask(large_scores(), workers=1) as executor:
        executor.submit(fake_task(0))
        evaluated = executor.next(60.0)
    assert evaluated is not None
    assert evaluated.score is not None
    assert evaluated.score.losses is not None
    assert evaluated.score.losses.flags.owndata
    assert evaluated.score.losses.sum() == 100_000


SCRIPT = """
import os, signal, sys
import psutil
from pathlib import Path
from evomerge.executor.ray import RayExecutor
from evomerge.testing.misbehaving import FakeFactory, fake_task

address = sys.argv[2] if len(sys.argv) > 2 else None
noted = []
signal.signal(signal.SIGINT, lambda *_: noted.append(1))
factory = FakeFactory(Path(sys.argv[1]))
with RayExecutor(factory, lambda recipe, known: (), workers=2, address=address) as executor:
    for number in range(6):
        executor.submit(fake_task(number))
    for number in range(6):
        if number == 2:
            os.killpg(0, signal.SIGINT)  # what a terminal does on Ctrl-C
        evaluated = executor.next(60.0)
        assert evaluated.score is not None and evaluated.cost.attempts == 1, evaluated
assert noted == [1]
assert not psutil.Process().children(recursive=True)
print("done")
"""


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, start_new_session=True, check=False)


def test_a_ray_of_its_own_survives_ctrl_c_and_leaves_nothing(tmp_path: Path) -> None:
    finished = script(str(tmp_path))
    assert (finished.returncode, finished.stdout) == (0, "done\n"), finished.stderr


def test_joins_a_standing_cluster_and_leaves_it_standing(tmp_path: Path, cluster: Cluster) -> None:
    address = cluster.ray.get_runtime_context().gcs_address
    finished = script(str(tmp_path), address)
    assert (finished.returncode, finished.stdout) == (0, "done\n"), finished.stderr
    with ask(FakeFactory(tmp_path), workers=1) as executor:
        executor.submit(fake_task(7))
        assert executor.next(60.0) is not None
