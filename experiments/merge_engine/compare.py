"""The same merges by evomerge and by mergekit, in turn, on the same checkpoints: time, processor time and memory.

    python experiments/merge_engine/compare.py --work DIR --mergekit MKENV/bin/mergekit-yaml [--size 0.45b 1.1b]
        [--method linear task_arithmetic slerp dare_ties ties] [--experts 3] [--rounds 5] [--threads 2]

Missing pools are made under DIR. Every run is a fresh process writing a whole safetensors folder, which is deleted; the
pool is read once before, so that it lies in the page cache. Who comes first changes from round to round. Every run is
written to --results at once; the table is of the medians. What the two wrote is compared, too. --only leaves one out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from make_pool import SHAPES, make
from measure import measure, size_of

from evomerge.merge.checkpoint import Checkpoint

QUIET = {"HF_HUB_OFFLINE": "1"}
WEIGHTS = (0.5, 0.3, 0.2)

Run = dict[str, Any]


def merge_text(method: str, pool: Path, experts: int, dtype: str) -> str:
    """The merge in mergekit's YAML, from which both sides start."""
    weights = WEIGHTS if experts == len(WEIGHTS) else (1 / experts,) * experts
    if method == "slerp":
        merge: dict[str, Any] = {
            "models": [{"model": str(pool / "expert0")}, {"model": str(pool / "expert1")}],
            "base_model": str(pool / "expert0"),
            "parameters": {"t": 0.4},
        }
    else:
        density = {"density": 0.5} if method in ("ties", "dare_ties") else {}
        merge = {
            "models": [
                {"model": str(pool / f"expert{index}"), "parameters": {"weight": weight} | density}
                for index, weight in enumerate(weights)
            ]
        }
        if method != "linear":
            merge["base_model"] = str(pool / "base")
    merge |= {"merge_method": method, "dtype": dtype}
    if dtype != "bfloat16":
        merge["out_dtype"] = "bfloat16"
    return yaml.safe_dump(merge, sort_keys=False)


def mergekit_command(program: str, merge: Path, out: Path, threads: int) -> list[str]:
    return [program, str(merge), str(out), "--random-seed", "42", "--num-threads", str(threads)]


def evomerge_command(program: str, merge: Path, out: Path, threads: int) -> list[str]:
    """Reads the merge as a recipe of its own first, which is not measured."""
    recipe = merge.with_suffix(".recipe.yml")
    imported = subprocess.run([program, "import-mergekit", str(merge)], capture_output=True, text=True, check=False)
    if imported.returncode:
        sys.exit(f"evomerge cannot read {merge}: {imported.stderr}")
    recipe.write_text(imported.stdout)
    return [program, "merge", str(recipe), "--out", str(out), "--threads", str(threads)]


COMMANDS: dict[str, Callable[[str, Path, Path, int], list[str]]] = {
    "evomerge": evomerge_command,
    "mergekit": mergekit_command,
}


def warm(merge: str) -> int:
    """Read every checkpoint of a merge, so that no run waits for the disk; returns their bytes."""
    settings = yaml.safe_load(merge)
    folders = {model["model"] for model in settings["models"]} | {settings.get("base_model")} - {None}
    for folder in folders:
        for file in Path(folder).glob("*.safetensors"):
            with file.open("rb", buffering=0) as stream:
                while stream.read(1 << 24):
                    pass
    return sum(size_of(Path(folder)) for folder in folders)


def run(tool: str, program: str, merge: Path, threads: int) -> Run:
    """One measured run; its output is left beside the merge."""
    out = output(merge, tool)
    shutil.rmtree(out, ignore_errors=True)
    command = COMMANDS[tool](program, merge, out, threads)
    read = warm(merge.read_text())
    taken = asdict(measure(command, out, QUIET))
    if taken["exit_code"]:
        sys.exit(f"{' '.join(command)} ended with {taken['exit_code']}:\n{taken['tail']}")
    return {"tool": tool, "input_bytes": read} | {key: taken[key] for key in taken if key not in ("command", "tail")}


def output(merge: Path, tool: str) -> Path:
    return merge.with_name(f"out-{tool}")


def pair(tools: Sequence[str], programs: dict[str, str], merge: Path, threads: int) -> tuple[list[Run], list[float]]:
    """A run of each tool in the given order, and how far their outputs are apart; no output is left."""
    folders = [output(merge, tool) for tool in tools]
    try:
        runs = [run(tool, programs[tool], merge, threads) for tool in tools]
        return runs, apart(*folders) if len(folders) > 1 else []
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def apart(left: Path, right: Path) -> list[float]:
    """Of every tenth tensor: the share of equal values, and the greatest difference of a tensor in relative norm."""
    one, other = Checkpoint(left), Checkpoint(right)
    equal = count = 0
    worst = 0.0
    for name in sorted(one.entries)[::10]:
        a, b = one.floats(name), other.floats(name)
        equal += int((a == b).sum())
        count += a.size
        worst = max(worst, float(np.linalg.norm(a - b) / np.linalg.norm(b)))
    return [equal / count, worst]


def found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        sys.exit(f"there is no program {program}; name it with --evomerge or --mergekit")
    return str(Path(path).absolute())


def version(program: str, package: str) -> str:
    """The package's version in the environment of a program."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    python = Path(program).parent / "python"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cores": os.cpu_count(), "processor": model, "memory_bytes": memory, "python": platform.python_version()}


def save(path: Path, results: dict[str, Any]) -> None:
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(results, indent=1) + "\n")
    beside.rename(path)


COLUMNS = (
    *("size", "experts", "method", "dtype", "tool", "runs", "wall s", "CPU s", "anonymous GB", "resident GB", "GB/s"),
    *("load before", "wall and CPU, times evomerge's", "equal values", "relative difference"),
)


def summary(runs: Sequence[Run], tools: Sequence[str]) -> list[str]:
    """A markdown table of medians with a row for each merge and tool; GB/s are of bytes read and written."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    keys = ("size", "experts", "method", "dtype")
    for merge in dict.fromkeys(tuple(run[key] for key in keys) for run in runs):
        here = [run for run in runs if tuple(run[key] for key in keys) == merge]
        medians = {tool: median([run for run in here if run["tool"] == tool]) for tool in tools}
        for tool, one in medians.items():
            times = ""
            if tool == "mergekit" and "evomerge" in medians:
                times = ", ".join(f"{one[key] / medians['evomerge'][key]:.1f}" for key in ("wall", "cpu"))
            apart_by = [f"{value:.2g}" for value in here[0]["apart"]] or ["", ""]
            speed = (one["input_bytes"] + one["output_bytes"]) / one["wall"] / 1e9
            numbers = [one["wall"], one["cpu"], one["anon_bytes"] / 1e9, one["rss_bytes"] / 1e9, speed]
            cells = [*merge, tool, one["runs"], *(f"{value:.2f}" for value in numbers), f"{one['load_before']:.1f}"]
            lines.append(f"| {' | '.join(map(str, [*cells, times, *apart_by]))} |")
    return lines


def median(runs: Sequence[Run]) -> dict[str, float]:
    keys = ("wall", "anon_bytes", "rss_bytes", "input_bytes", "output_bytes", "load_before")
    cpu = statistics.median(run["user"] + run["system"] for run in runs)
    return {key: statistics.median(run[key] for run in runs) for key in keys} | {"cpu": cpu, "runs": len(runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = ["linear", "task_arithmetic", "slerp", "dare_ties", "ties"]
    parser.add_argument("--work", type=Path, required=True, help="where pools and outputs go; outside the repository")
    parser.add_argument("--mergekit", default="mergekit-yaml", help="the program of mergekit's own environment")
    parser.add_argument("--evomerge", default=str(Path(sys.executable).with_name("evomerge")))
    parser.add_argument("--only", choices=COMMANDS)
    parser.add_argument("--size", nargs="+", choices=SHAPES, default=["0.45b", "1.1b"])
    parser.add_argument("--method", nargs="+", choices=methods, default=methods)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of mergekit's arithmetic")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.json"))
    given = parser.parse_args()
    tools = [given.only] if given.only else list(COMMANDS)
    programs = {tool: found(getattr(given, tool)) for tool in tools}
    versions = {tool: version(program, tool) for tool, program in programs.items()}
    results: dict[str, Any] = {"machine": machine(), "threads": given.threads, "versions": versions, "runs": []}
    pools = {size: make(given.work.absolute(), size, given.experts) for size in given.size}
    for (size, pool), method in itertools.product(pools.items(), given.method):
        merge = pool / f"{method}.yml"
        merge.write_text(merge_text(method, pool, given.experts, given.dtype))
        about = {"size": size, "experts": given.experts, "method": method, "dtype": given.dtype}
        for number in range(given.rounds):
            order = tools if number % 2 == 0 else tools[::-1]
            runs, apart_by = pair(order, programs, merge, given.threads)
            results["runs"] += [about | {"round": number, "apart": apart_by} | one for one in runs]
            save(given.results, results)
    print("\n".join(summary(results["runs"], tools)))


if __name__ == "__main__":
    main()
