"""What slopes towards a pool cost: seconds, and the memory of the process, for pools of several sizes.

    python memory.py [--pools 4 20 50] [--width 1500]

makes a pool of random checkpoints of one multi-layer perceptron (width 1500: 5.7 million parameters, 23 MB each) in a
scratch folder and prints a Markdown table. Each pool is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evomerge.merge.bind import bind
from evomerge.merge.pool import ModelPool
from evomerge.merge.slopes import Slopes
from evomerge.settings import PoolSettings
from evomerge_fitness.mlp import MLP, MLPConfig, load_mlp, save_mlp


def private() -> int:
    """Bytes that are this process's alone: pages of mapped files are not counted, which the system takes back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise OSError("this system does not tell a process's private memory; run it on Linux")


class Peak:
    """The largest private memory meanwhile, looked at every millisecond."""

    def __enter__(self) -> Peak:
        self.highest = private()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.highest = max(self.highest, private())


def measure(folder: Path, members: int) -> None:
    """Print one row of the table."""
    names = {f"m{at}": f"m{at}" for at in range(members)}
    pool = ModelPool.open(PoolSettings(names, base="base"), folder)
    model = load_mlp(folder / "base")
    target = bind(model, pool)
    target.put(pool.vector("base"))
    slopes = Slopes(model, target, pool)
    x = torch.randn(100, model.config.layer_sizes[0], generator=torch.Generator().manual_seed(0))

    def terms(model: Any) -> Iterator[Tensor]:
        yield torch.nn.functional.cross_entropy(model(x), torch.arange(100) % 10)

    slopes(terms(model))  # libraries take their memory at first use
    with Peak() as peak:
        begun = time.perf_counter()
        slopes(terms(model))
        seconds = time.perf_counter() - begun
    size = 4 * pool.size / 1e6
    print(f"| {members} | {size * (members + 1):.0f} | {peak.highest / 1e6:.0f} | {seconds:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, nargs="+", default=[4, 20, 50])
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--folder", type=Path, help="of a pool that is there already")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.folder is not None:
        measure(given.folder, given.pools[0])
        return
    print(
        "| models in the pool | MB of all | MB of the process, at most | seconds |\n|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        sizes = (784, given.width, given.width, given.width, 10)
        for name in ("base", *(f"m{at}" for at in range(max(given.pools)))):
            model = MLP(MLPConfig(sizes))
            tensors = {key: 0.05 * torch.randn(one.shape) for key, one in model.state_dict().items()}
            save_mlp(Path(scratch) / name, tensors, sizes)
        for members in given.pools:
            command = [sys.executable, __file__, "--folder", scratch, "--pools", str(members)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
