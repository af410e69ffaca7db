"""CMA-ES with 2 and with 8 coefficients, objective cross-entropy or accuracy, beside the figures of pycma 4.0.0.

python experiments/cma_digits/coefficients.py [--seeds 10]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import yaml

from evomerge import config
from evomerge.store import open_store
from evomerge.study.drive import begin, create

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "m2n2_digits"))
from pool import ORDER, write_pool  # noqa: E402  # the other experiment's seed models

GROUPS = {"1 group (2 coefficients)": {}, "4 tensors (8)": {name: [name] for name in ORDER}}
REFERENCE = {
    ("1 group (2 coefficients)", "cross_entropy"): "70.77 / 57.22 every seed",
    ("1 group (2 coefficients)", "accuracy"): "73.3 ± 1.7 / 60.3 ± 1.6",
    ("4 tensors (8)", "cross_entropy"): "73.8 ± 0.5 / 61.2 ± 0.4",
    ("4 tensors (8)", "accuracy"): "71.8 ± 1.0 / 59.6 ± 0.9",
}


def run(groups: dict[str, list[str]], objective: str, seed: int) -> tuple[float, float]:
    """Train and test accuracy in % of the best of 1,000 candidates."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pool(folder / "seeds")
        study = yaml.safe_load((HERE / "study.yaml").read_text())
        study |= {"seed": seed, "objective": objective}
        study["pool"]["groups"] = groups
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        with open_store(f"memory://{name}") as store:
            outcome = begin(create(config.read(folder / "study.yaml")), store)
            opened = store.open("cma-digits")
            found = [next(opened.scores(split, [outcome.final or 0], items=False)) for split in ("search", "report")]
    train, test = (100 * one.score["accuracy"] for one in found if one.score is not None)
    return train, test


def shown(values: list[float]) -> str:
    """Mean and standard error."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    print("| coefficients | objective | train / test % | pycma 4.0.0 |\n|---|---|---|---|")
    for (name, objective), reference in REFERENCE.items():
        results = [run(GROUPS[name], objective, seed) for seed in range(given.seeds)]
        train, test = (shown(list(values)) for values in zip(*results, strict=True))
        print(f"| {name} | {objective} | {train} / {test} | {reference} |", flush=True)


if __name__ == "__main__":
    main()
