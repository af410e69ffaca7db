"""How many requests a second the client keeps up, and what one costs of the processor.

python throughput.py [IN_FLIGHT] [REQUESTS]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from evomerge.blackbox import Family
from evomerge.candidate import Candidate, Recipe, Segment
from evomerge.evaluator import EvaluatorFactory
from evomerge.executor.port import Task
from evomerge.executor.threads import ThreadExecutor
from evomerge.fitness import Splits
from evomerge.http import Client, ClientSettings
from evomerge.settings import Choice, MergeSettings, PoolSettings
from evomerge.wire import Question, dump
from evomerge_fitness.pool_server import PoolServer, PoolServerSettings

SECONDS = 0.1
HERE = Path(__file__).parent


def recipe(number: int) -> Recipe:
    weights = tuple(np.random.default_rng(number).random(2).tolist())
    return Recipe("linear", ("pool:a", "pool:b"), (Segment("all", 0, 100, weights),))


def measured(what: str, in_flight: int, requests: int, go: Callable[[], None]) -> None:
    """Wall clock and this process's own processor time."""
    began, cpu = time.perf_counter(), time.process_time()
    go()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    share = requests / seconds / (in_flight / SECONDS)
    print(f"{what:28} {requests / seconds:7.0f} requests/s ({share:4.0%}), {1000 * cpu / requests:.2f} ms of CPU each")


def bare(url: str, in_flight: int, requests: int) -> None:
    """The HTTP client alone, in threads of a plain pool; bodies are made before."""
    client = Client(url, ClientSettings(concurrency=in_flight))
    bodies = [dump(Question(recipe(number))) for number in range(requests)]

    def ask(body: bytes) -> int:
        return client.ask("POST", "/v1/score", lambda reply: reply.status, body=body)

    with ThreadPoolExecutor(in_flight) as threads:
        list(threads.map(ask, bodies[:in_flight]))
        measured("HTTP client", in_flight, requests, lambda: list(threads.map(ask, bodies)) and None)
    client.close()


def fitness(url: str, items: int, in_flight: int, requests: int) -> None:
    """The fitness: recipes in, checked scores out."""
    one = PoolServer(PoolServerSettings(url, concurrency=in_flight), Splits(((0, items),)))
    families = [Family(recipe(number)) for number in range(requests)]
    with ThreadPoolExecutor(in_flight) as threads:
        list(threads.map(lambda family: one.score(family, "search"), families[:in_flight]))
        measured(
            f"fitness, {items} items",
            in_flight,
            requests,
            lambda: list(threads.map(lambda family: one.score(family, "search"), families)) and None,
        )


def executor(url: str, items: int, in_flight: int, requests: int) -> None:
    """All of it, as a study has it: the executor of threads over the evaluator."""
    choice = Choice("pool_server", PoolServerSettings(url, concurrency=in_flight))
    factory = EvaluatorFactory(HERE, PoolSettings(), MergeSettings(), choice, Splits(((0, items),)))
    with ThreadExecutor(factory, lambda one, known: (), workers=in_flight) as threads:

        def go(count: int) -> None:
            for number in range(count):
                threads.submit(Task(Candidate(number, recipe(number))))
            for _ in range(count):
                threads.next()

        go(in_flight)
        measured(f"executor, {items} items", in_flight, requests, lambda: go(requests))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("in_flight", nargs="?", type=int, default=64)
    parser.add_argument("requests", nargs="?", type=int, default=6400)
    options = parser.parse_args()
    in_flight, requests = options.in_flight, options.requests
    print(f"{in_flight} in flight, {SECONDS * 1000:g} ms an answer: at most {in_flight / SECONDS:g} requests/s")
    for items in (1, 100, 1000):
        command = [sys.executable, HERE / "slow_server.py", str(SECONDS), str(items)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            try:
                if items == 1:
                    bare(url, in_flight, requests)
                fitness(url, items, in_flight, requests)
                executor(url, items, in_flight, requests)
            finally:
                server.kill()


if __name__ == "__main__":
    main()
