"""The demo: evolve a merged digit classifier, kill the search half-way, resume it, and prove that nothing was lost.

``make demo`` runs it; everything it writes lies in ``demo/`` beside the Makefile. The searches run through the real
command line as processes of their own; what they found is then checked without evomerge's help, in plain numpy.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from evomerge import codec
from evomerge.candidate import Evaluated, Split
from evomerge.history import plot_history, read_history
from evomerge.store import open_store
from evomerge.store.port import Store, StudyStore

FOLDER = Path(__file__).parents[2] / "demo"
STUDY, RANDOM, DATABASE, PICTURE = (FOLDER / name for name in ("study.yaml", "random.yaml", "study.db", "history.png"))
EVALUATIONS = 4000
PATIENCE = 120.0  # seconds until half of them must be done
SPLITS: tuple[Split, ...] = ("search", "selection", "report")

Weights = dict[str, NDArray[np.float32]]
Accuracy = dict[Split, float]

console = Console(highlight=False)


def say(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


def evomerge(*arguments: object) -> list[str]:
    """A command line, shown before it runs."""
    words = [str(argument) for argument in arguments]
    shown = (word.replace(f"{FOLDER.parent}/", "") for word in words)
    console.print(f"$ evomerge {' '.join(shown)}", style="cyan", soft_wrap=True)
    return [str(Path(sys.executable).with_name("evomerge")), *words]


def call(*arguments: object) -> None:
    """Run a command to its end."""
    subprocess.run(evomerge(*arguments), check=True)


# --- the three searches -----------------------------------------------------------------------------------------


def begin_anew() -> None:
    """An empty folder, two seed models, and two study files that differ in the strategy only."""
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    call("init", FOLDER)
    study = yaml.safe_load(STUDY.read_text())
    study["strategy"] = {"name": "random"}
    RANDOM.write_text("# Random search over the weights of the two models, to compare with.\n" + yaml.safe_dump(study))


def run(file: Path, name: str) -> None:
    """A search that nothing disturbs."""
    call("run", file, "--name", name, "--budget", EVALUATIONS, "--db", DATABASE)


def run_and_kill(name: str) -> int:
    """Begin a search and kill its process with SIGKILL once half of it is in the database; returns how much was."""
    process = subprocess.Popen(evomerge("run", STUDY, "--name", name, "--budget", EVALUATIONS, "--db", DATABASE))
    deadline = time.monotonic() + PATIENCE
    try:
        while told(name) < EVALUATIONS // 2:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the search ended, or hung, before it could be killed")
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    return told(name)


def told(name: str) -> int:
    """How many results of a study are in the database."""
    if not DATABASE.exists():
        return 0
    with open_store(f"sqlite:///{DATABASE}") as store:
        return next((summary.told for summary in store.studies() if summary.name == name), 0)


# --- are two histories the same? --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traces:
    """All that a study did, as texts to compare: what was asked, what came of it, who lived in the archive when."""

    candidates: list[str]
    scores: list[str]
    populations: list[str]


def traces(study: StudyStore) -> Traces:
    turns = list(study.turns())
    return Traces(
        [codec.dump(candidate) for turn in turns for candidate in turn.asked],
        [outcome(evaluated) for turn in turns for evaluated in turn.told],
        [codec.dump(change) for turn in turns for change in turn.changes],
    )


def outcome(evaluated: Evaluated) -> str:
    """A result down to every item's score and loss; not its cost, which differs from run to run."""
    score = codec.dump(evaluated.score) if evaluated.score is not None else evaluated.failure
    return f"{evaluated.candidate.number} {score}"


def compare(store: Store, one: str, two: str) -> None:
    """Stop unless two studies have the same history, bit for bit."""
    left, right = traces(store.open(one)), traces(store.open(two))
    for what in ("candidates", "scores", "populations"):
        a, b = getattr(left, what), getattr(right, what)
        if a != b:
            first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            raise SystemExit(f"NOT the same: {what} differ from entry {first} on ({len(a)} and {len(b)} entries)")
        console.print(f"  {len(a):>5} {'changes of the population' if what == 'populations' else what}: identical")


# --- how good are they, without evomerge -------------------------------------------------------------------------


def scorer() -> Callable[[Weights], Accuracy]:
    """Accuracy on each split of a 64-256-10 network, in plain numpy."""
    images, labels = load_digits(return_X_y=True)
    ranges = {
        split: slice(*map(int, text.split(":"))) for split, text in yaml.safe_load(STUDY.read_text())["splits"].items()
    }

    def accuracy(weights: Weights) -> Accuracy:
        hidden = np.maximum(images @ weights["layers.0.weight"] + weights["layers.0.bias"], 0)
        right = (hidden @ weights["layers.1.weight"] + weights["layers.1.bias"]).argmax(axis=1) == labels
        return {split: float(right[ranges[split]].mean()) for split in SPLITS}

    return accuracy


def weights_of(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def exported(store: Store, name: str, accuracy: Callable[[Weights], Accuracy]) -> Accuracy:
    """Export a study's winner, load it back, and stop unless it is as good as the study says."""
    folder = FOLDER / "winners" / name
    call("export", name, folder, "--db", DATABASE)
    study = store.open(name)
    final = study.summary().final
    found = accuracy(weights_of(folder))
    for split in SPLITS:
        (evaluated,) = study.scores(split, () if final is None else (final,), items=False)
        stored = evaluated.score["accuracy"] if evaluated.score is not None else float("nan")
        if abs(found[split] - stored) > 1e-9:
            raise SystemExit(f"the exported model has {split} accuracy {found[split]:.4f}, the study says {stored:.4f}")
    return found


def table(rows: dict[str, Accuracy]) -> Table:
    shown = Table("accuracy, %", *(f"{split}" for split in SPLITS), title=f"after {EVALUATIONS:,} evaluations each")
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, accuracies in rows.items():
        shown.add_row(name, *(f"{100 * accuracies[split]:.1f}" for split in SPLITS))
    return shown


def main() -> None:
    began = time.monotonic()
    say("1. Two models that each know half of the digits, and a study file")
    begin_anew()
    say("2. M2N2 searches for a merge of the two, and is killed with SIGKILL half-way")
    half = run_and_kill("interrupted")
    console.print(f"killed; {half:,} of {EVALUATIONS:,} results are in the database")
    say("3. It is resumed")
    call("resume", STUDY, "--name", "interrupted", "--db", DATABASE)
    say("4. The same search again, undisturbed; and random search with as many evaluations")
    run(STUDY, "undisturbed")
    run(RANDOM, "random")
    with open_store(f"sqlite:///{DATABASE}") as store:
        say("5. The interrupted and the undisturbed search, compared entry by entry")
        compare(store, "interrupted", "undisturbed")
        say("6. The winners are exported, loaded back and scored in plain numpy")
        accuracy = scorer()
        seeds = [weights_of(FOLDER / "models" / name) for name in ("low", "high")]
        average = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in seeds[0]}
        rows = {
            "best seed": max((accuracy(seed) for seed in seeds), key=lambda found: found["search"]),
            "plain average": accuracy(average),
            "random search": exported(store, "random", accuracy),
            "M2N2": exported(store, "interrupted", accuracy),
        }
        runs = {"M2N2": "interrupted", "random search": "random"}
        plot_history(PICTURE, {label: [read_history(store.open(name))] for label, name in runs.items()})
    console.print()
    console.print(table(rows))
    console.print(f"picture: {PICTURE.relative_to(FOLDER.parent)}; all of this took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
