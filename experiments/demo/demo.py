"""The demo: evolve a merged digit classifier, kill the search half-way, resume it, and prove that nothing was lost.

``make demo`` runs it; everything it writes lies in ``demo/`` beside the Makefile. The searches run through the real
command line as processes of their own; what they found is then checked without evomerge's help, in plain numpy.
"""

import argparse
import shutil
import subprocess
import sys
import time
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
EVALUATIONS = 4000
PATIENCE = 120.0  # seconds until half of them must be done
SEEDS = {"low": range(5), "high": range(5, 10)}
RIVALS: dict[str, dict[str, object]] = {
    "random search": {"name": "random"},
    "GA": {"name": "m2n2", "population": 20, "alpha": 0, "attraction": False},
    "no split point": {"name": "m2n2", "population": 20, "split_point": False},
    "no attraction": {"name": "m2n2", "population": 20, "attraction": False},
}
"""What M2N2 is compared with: random weights of the two models, and M2N2 without its parts."""
SPLITS: tuple[Split, ...] = ("search", "selection", "report")

Weights = dict[str, NDArray[np.float32]]
Accuracy = dict[Split, float]

console = Console(highlight=False)


def study_name(rival: str) -> str:
    """What a rival's study is called."""
    return rival.replace(" ", "-").lower()


def say(text: str) -> None:
    """A headline."""
    console.print(f"\n[bold]{text}[/bold]", soft_wrap=True)


# --- the searches, by the command line ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Searches:
    """Searches of ``evaluations`` candidates each, all kept in one folder and one database."""

    folder: Path
    evaluations: int

    @property
    def study(self) -> Path:
        """The study file that ``evomerge init`` writes."""
        return self.folder / "study.yaml"

    def rival(self, name: str) -> Path:
        """The same study file with another strategy."""
        return self.folder / f"{study_name(name)}.yaml"

    @property
    def database(self) -> str:
        """Where all of them are kept."""
        return f"sqlite:///{self.folder / 'study.db'}"

    def begin_anew(self) -> None:
        """An empty folder, two seed models, and study files that differ in the strategy only."""
        if self.folder == FOLDER and FOLDER.exists():
            shutil.rmtree(FOLDER)
        self.call("init", self.folder)
        study = yaml.safe_load(self.study.read_text())
        for name, strategy in RIVALS.items():
            rival = yaml.safe_dump(study | {"strategy": strategy})
            self.rival(name).write_text(f"# {name}, to compare with\n{rival}")

    def run(self, file: Path, name: str) -> None:
        """A search that nothing disturbs."""
        self.call("run", file, "--name", name, "--budget", self.evaluations, "--db", self.database)

    def run_and_kill(self, name: str) -> int:
        """Begin one and kill its process with SIGKILL once half of it is in the database; returns how much was."""
        process = subprocess.Popen(
            self.command("run", self.study, "--name", name, "--budget", self.evaluations, "--db", self.database)
        )
        deadline = time.monotonic() + PATIENCE
        try:
            while self.told(name) < self.evaluations // 2:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the search ended, or hung, before it could be killed")
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        return self.told(name)

    def told(self, name: str) -> int:
        """How many results of a study are in the database."""
        with open_store(self.database) as store:
            return next((summary.told for summary in store.studies() if summary.name == name), 0)

    def call(self, *arguments: object) -> None:
        """Run ``evomerge`` with these arguments to its end."""
        subprocess.run(self.command(*arguments), check=True)

    def command(self, *arguments: object) -> list[str]:
        """A command line of ``evomerge``, shown as it would be typed beside the folder."""
        words = [str(argument) for argument in arguments]
        shown = (word.replace(f"{self.folder.parent}/", "") for word in words)
        console.print(f"$ evomerge {' '.join(shown)}", style="cyan", soft_wrap=True)
        return [str(Path(sys.executable).with_name("evomerge")), *words]


# --- are two histories the same? --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traces:
    """All that a study did, as texts to compare: what was asked, what came of it, who lived in the archive when."""

    candidates: list[str]
    scores: list[str]
    populations: list[str]


def traces(study: StudyStore) -> Traces:
    """Read them from the journal."""
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


class Judge:
    """Scores a 64-256-10 network on scikit-learn's digits, in plain numpy."""

    def __init__(self, splits: dict[Split, str]) -> None:
        self.images, self.labels = load_digits(return_X_y=True)
        self.ranges = {split: slice(*map(int, text.split(":"))) for split, text in splits.items()}

    def right(self, weights: Weights) -> NDArray[np.bool_]:
        """Which items it classifies correctly."""
        hidden = np.maximum(self.images @ weights["layers.0.weight"] + weights["layers.0.bias"], 0)
        logits = hidden @ weights["layers.1.weight"] + weights["layers.1.bias"]
        return np.asarray(logits.argmax(axis=1) == self.labels)

    def accuracy(self, weights: Weights) -> Accuracy:
        """The share on each split."""
        right = self.right(weights)
        return {split: float(right[self.ranges[split]].mean()) for split in SPLITS}


def weights_of(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def scores_of(study: StudyStore) -> Accuracy:
    """What the database says of a study's final candidate."""
    final = study.summary().final
    if final is None:
        raise SystemExit(f"{study.summary().name} has no final candidate")
    found = {split: next(study.scores(split, (final,), items=False)).score for split in SPLITS}
    return {split: score["accuracy"] for split, score in found.items() if score is not None}


def export_and_check(searches: Searches, study: StudyStore, judge: Judge) -> None:
    """Export a study's winner, load it back, and stop unless it is as good as the study says."""
    name, stored = study.summary().name, scores_of(study)
    searches.call("export", name, searches.folder / "winner", "--db", searches.database)
    found = judge.accuracy(weights_of(searches.folder / "winner"))
    if any(abs(found[split] - stored[split]) > 1e-9 for split in SPLITS):
        raise SystemExit(f"the exported model has accuracies {found}, the study says {stored}")
    console.print("  loaded back: exactly as good as the study says")


def table(rows: dict[str, Accuracy]) -> Table:
    """One row for each way to get a model."""
    shown = Table("accuracy, %", *SPLITS)
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, accuracies in rows.items():
        shown.add_row(name, *(f"{100 * accuracies[split]:.1f}" for split in SPLITS))
    return shown


def show_seeds(seeds: dict[str, Weights], judge: Judge) -> None:
    """What the two models know."""
    for name, weights in seeds.items():
        mine, right = np.isin(judge.labels, SEEDS[name]), judge.right(weights)
        known = f"{min(SEEDS[name])} to {max(SEEDS[name])}"
        console.print(
            f"  {name}: {right[mine].mean():.0%} of the digits {known}, {right[~mine].mean():.0%} of the others"
        )


def search(searches: Searches) -> None:
    """One search killed and resumed, the same undisturbed, and its rivals."""
    say("2. M2N2 searches for a merge of the two, and is killed with SIGKILL half-way")
    half = searches.run_and_kill("interrupted")
    console.print(f"  killed; {half:,} of {searches.evaluations:,} results are in the database")
    say("3. It is resumed")
    searches.call("resume", searches.study, "--name", "interrupted", "--db", searches.database)
    say("4. The same search again, undisturbed; then its rivals, with as many evaluations each")
    searches.run(searches.study, "undisturbed")
    for name in RIVALS:
        searches.run(searches.rival(name), study_name(name))


def judge_all(searches: Searches, store: Store, seeds: dict[str, Weights], judge: Judge) -> None:
    """Compare the histories, export the winners, print the table and draw the picture."""
    say("5. The interrupted and the undisturbed search, compared entry by entry")
    compare(store, "interrupted", "undisturbed")
    say("6. The winner, exported, loaded back and scored in plain numpy")
    export_and_check(searches, store.open("interrupted"), judge)
    average = {name: np.mean([seed[name] for seed in seeds.values()], axis=0) for name in seeds["low"]}
    rows = {
        "best seed": max(map(judge.accuracy, seeds.values()), key=lambda found: found["search"]),
        "plain average": judge.accuracy(average),
        **{name: scores_of(store.open(study_name(name))) for name in RIVALS},
        "M2N2": scores_of(store.open("interrupted")),
    }
    console.print()
    console.print(table(rows))
    console.print(
        f"{searches.evaluations:,} evaluations on the search items in each search. The selection items chose its\n"
        "winner, the report items were used for nothing else. One run each: experiments/m2n2_digits has ten.",
        soft_wrap=True,
    )
    runs = {"M2N2": "interrupted", **{name: study_name(name) for name in RIVALS}}
    picture = searches.folder / "history.png"
    plot_history(picture, {label: [read_history(store.open(name))] for label, name in runs.items()})
    console.print(f"picture: {picture}", soft_wrap=True)


def main() -> None:
    """The demo from beginning to end."""
    parser = argparse.ArgumentParser(description="Kill and resume a search; show that nothing was lost.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="to write into; default: demo/, made anew")
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS, help=f"of each search (default {EVALUATIONS})")
    options = parser.parse_args()
    searches, began = Searches(options.folder.absolute(), options.evaluations), time.monotonic()
    say("1. Two models that each know half of the digits, and a study file")
    searches.begin_anew()
    judge = Judge(yaml.safe_load(searches.study.read_text())["splits"])
    seeds = {name: weights_of(searches.folder / "models" / name) for name in SEEDS}
    show_seeds(seeds, judge)
    search(searches)
    with open_store(searches.database) as store:
        judge_all(searches, store, seeds, judge)
    console.print(f"time: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
