"""Merging in memory beside a plain copy of as many bytes, and what an export holds in memory.

    python experiments/merge_engine/bandwidth.py --work DIR [--size 0.45b] [--rounds 7] [--threads 1 2] [--results FILE]

Both read the same mapped checkpoints (from the page cache) and write the same memory, whose pages are there already; in
every round each of them runs once, and a share is that of one round. Traffic is what is read plus what is written: a
copy moves as many bytes as the merge beside it. Candidates are several merges of one pool, in one pass and alone.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from make_pool import SHAPES, make
from measure import measure

from evomerge.candidate import Recipe, Segment
from evomerge.merge.bind import Target
from evomerge.merge.build import Builder
from evomerge.merge.pool import ModelPool
from evomerge.merge.tensorfile import STORED, Array
from evomerge.settings import PoolSettings

SOURCES = 4
CANDIDATES = 8
SPAN = 1 << 24
"""Bytes that a thread copies at a time."""

Seconds = dict[str, list[float]]


def opened(folder: Path, sources: int, threads: int) -> Builder:
    members = {f"expert{index}": str(folder / f"expert{index}") for index in range(sources)}
    return Builder(ModelPool.open(PoolSettings(members), folder), "table", threads=threads)


def recipe(pool: ModelPool, weights: Sequence[float]) -> Recipe:
    segments = tuple(Segment(group.name, 0, group.size, tuple(weights)) for group in pool.groups)
    return Recipe("linear", tuple(f"pool:{name}" for name in pool.members), segments)


def targets(pool: ModelPool, memory: Sequence[Array], dtype: str) -> list[Target]:
    """Models without a module: the tensors of each lie one after the other in memory that is given."""
    found = []
    for buffer in memory:
        values, at, arrays = buffer.view(STORED[dtype]), 0, {}
        for slot in pool.layout.slots:
            arrays[slot.name] = (values[at : at + slot.size], dtype)
            at += slot.size
        found.append(Target({}, arrays))
    return found


def touched(count: int, nbytes: int) -> list[Array]:
    """Memory whose pages are there."""
    buffers = [np.empty(nbytes, dtype=np.uint8) for _ in range(count)]
    for buffer in buffers:
        buffer.fill(1)
    return buffers


def numpy_copy(to: Array, source: Array) -> None:
    np.copyto(to, source)


def c_copy(to: Array, source: Array) -> None:
    ctypes.memmove(to.ctypes.data, source.ctypes.data, to.nbytes)


def copy(how: Callable[[Array, Array], None], files: Sequence[Array], to: Array, nbytes: int, threads: int) -> None:
    """Copy ``nbytes`` from the mapped files to the memory, going round in both."""
    whole = min([len(to), *(len(file) for file in files)]) // SPAN * SPAN

    def one(number: int) -> None:
        at = number * SPAN % whole
        how(to[at : at + SPAN], files[number * SPAN // whole % len(files)][at : at + SPAN])

    with ThreadPoolExecutor(threads) as workers:
        list(workers.map(one, range(nbytes // SPAN)))


def in_turn(runs: dict[str, Callable[[], None]], rounds: int) -> Seconds:
    """Seconds of every run in every round; one round more is not counted."""
    taken: Seconds = {name: [] for name in runs}
    for number in range(rounds + 1):
        order = list(runs) if number % 2 else list(reversed(runs))
        for name in order:
            begun = time.perf_counter()
            runs[name]()
            if number:
                taken[name].append(time.perf_counter() - begun)
    return taken


def shares(taken: Seconds, of: str, to: str) -> list[float]:
    """One run's seconds as a share of another's, round by round."""
    return [one / two for one, two in zip(taken[of], taken[to], strict=True)]


def materialize(folder: Path, threads: int, rounds: int) -> dict[str, object]:
    """A weighted sum of three models, as bfloat16 and as float32, beside copies of as many bytes."""
    builder = opened(folder, 3, threads)
    pool = builder.pool
    vector = builder.resolve(recipe(pool, (0.5, 0.3, 0.2)))
    files = [np.asarray(np.memmap(source.files[0].path, mode="r")) for source in pool.checkpoints.values()]
    (memory,) = touched(1, 4 * pool.size)
    rows: dict[str, object] = {}
    for dtype in ("BF16", "F32"):
        traffic = pool.size * (3 * 2 + STORED[dtype].itemsize)
        (target,) = targets(pool, [memory[: STORED[dtype].itemsize * pool.size]], dtype)
        taken = in_turn(
            {
                "merge": lambda target=target: builder.write(vector, target),  # type: ignore[misc]
                "numpy": lambda half=traffic // 2: copy(numpy_copy, files, memory, half, threads),  # type: ignore[misc]
                "memcpy": lambda half=traffic // 2: copy(c_copy, files, memory, half, threads),  # type: ignore[misc]
            },
            rounds,
        )
        rows[f"linear, 3 BF16 to {dtype}"] = {
            "traffic": traffic,
            "seconds": taken,
            "of numpy": shares(taken, "numpy", "merge"),
            "of memcpy": shares(taken, "memcpy", "merge"),
        }
    return rows


def candidates(folder: Path, threads: int, rounds: int) -> dict[str, object]:
    """Eight weighted sums of four models: one of them alone, and all in one pass."""
    builder = opened(folder, SOURCES, threads)
    pool = builder.pool
    weights = np.random.default_rng(0).dirichlet(np.ones(SOURCES), CANDIDATES)
    vectors = [builder.resolve(recipe(pool, row)) for row in weights.tolist()]
    found = targets(pool, touched(CANDIDATES, 2 * pool.size), "BF16")
    taken = in_turn(
        {
            "one": lambda: builder.write(vectors[0], found[0]),
            "all": lambda: builder.write_many(vectors, found),
        },
        rounds,
    )
    return {f"{CANDIDATES} candidates": {"seconds": taken, "times one": shares(taken, "all", "one")}}


def memory_of_exports(folder: Path, experts: Sequence[int]) -> dict[str, object]:
    """Anonymous memory of `evomerge merge` at its peak; beyond what there is, experts are links to others."""
    program = Path(sys.executable).with_name("evomerge")
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        for count in experts:
            members = {}
            for index in range(count):
                link = work / f"link{index}"
                if not link.exists():
                    link.symlink_to(folder / f"expert{index % SOURCES}")
                members[f"expert{index}"] = str(link)
            weights = dict.fromkeys(members, 1 / count)
            merge = {"operator": "linear", "sources": list(members), "parameters": {"weight": weights}}
            (work / "recipe.yml").write_text(yaml.safe_dump({"pool": {"members": members}, "merge": merge}))
            out = work / f"out{count}"
            taken = measure([str(program), "merge", str(work / "recipe.yml"), "--out", str(out)], out)
            if taken.exit_code:
                sys.exit(taken.tail)
            found[str(count)] = {"anon_bytes": taken.anon_bytes, "output_bytes": taken.output_bytes}
    return found


def report(results: dict[str, dict[str, object]]) -> str:
    """The medians as Markdown tables."""
    lines = ["| threads | merge | GB/s | numpy copy GB/s | of numpy copy | of memcpy |", "|---|---|---|---|---|---|"]
    several = []
    for threads, rows in results.items():
        for name, row in rows.items():
            if not isinstance(row, dict) or "traffic" not in row:
                if name.endswith("candidates"):
                    several.append(f"| {threads} | {name} | {statistics.median(row['times one']):.2f} |")
                continue
            rate, plain = (row["traffic"] / statistics.median(row["seconds"][one]) / 1e9 for one in ("merge", "numpy"))
            told = " | ".join(f"{statistics.median(row[key]):.0%}" for key in ("of numpy", "of memcpy"))
            lines.append(f"| {threads} | {name} | {rate:.1f} | {plain:.1f} | {told} |")
    lines += ["", "| threads | in one pass | times one alone |", "|---|---|---|", *several]
    lines += ["", "| experts | anonymous memory, MB | written, MB |", "|---|---|---|"]
    for count, row in results.get("exports", {}).items():
        if isinstance(row, dict):
            lines.append(f"| {count} | {row['anon_bytes'] / 1e6:.0f} | {row['output_bytes'] / 1e6:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where pools are kept; outside the repository")
    parser.add_argument("--size", choices=SHAPES, default="0.45b")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--experts", type=int, nargs="*", default=[3, 8, 16], help="of the exports; none leaves them out"
    )
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    folder = make(given.work.resolve(), given.size, SOURCES)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {given.size}, {given.rounds} rounds", flush=True)
    results: dict[str, dict[str, object]] = {}
    for threads in given.threads:
        results[str(threads)] = materialize(folder, threads, given.rounds) | candidates(folder, threads, given.rounds)
    results["exports"] = memory_of_exports(folder, given.experts)
    if given.results:
        given.results.write_text(json.dumps(results, indent=1) + "\n")
    print(report(results))


if __name__ == "__main__":
    main()
