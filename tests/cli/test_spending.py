"""Studies that stop candidates early, from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from evomerge.store import open_store
from evomerge.study.record import problem_of


def raced(study: Path, evaluation: str, strategy: str = "{name: random}") -> None:
    """The study with another strategy and policy."""
    text = study.read_text()
    start, stop = text.index("strategy:"), text.index("budget:")
    study.write_text(f"{text[:start]}strategy: {strategy}\n{text[stop:]}\nevaluation: {evaluation}\n")


def items_of(study: Path, number: int) -> int:
    """On how many items a candidate was scored, in all its rounds."""
    with open_store(f"sqlite:///{study.parent}/study.db") as store:
        kept = store.open("digits")
        recipe = kept.candidates((number,))[0].recipe
        every = kept.candidates(range(kept.summary().told))
        return sum(one.request.size or 0 for one in every if one.recipe == recipe)


def problem_items(study: Path) -> int:
    with open_store(f"sqlite:///{study.parent}/study.db") as store:
        return problem_of(store.open("digits").record).items


def test_a_raced_study_runs_goes_on_is_shown_and_verified(evomerge: Any, study: Path) -> None:
    raced(study, "{stop: race, first: 64, confidence: 0.9}")
    ended = evomerge("run", "study.yaml", "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["status"] == "finished"
    assert document["told"] > 60, "parts of evaluations count as their share of the items"
    assert "selection" in document["scores"]
    shown = evomerge("show")
    assert " of 60 (in " in shown.out
    best = json.loads(evomerge("show", "--json").out)
    assert 59 < best["evaluations"] <= 60
    lines = {one["number"]: one for one in best["candidates"]}
    assert lines[best["summary"]["best_number"]]["search"] == best["summary"]["best"]
    assert items_of(study, document["final"]) == problem_items(study), "the winner was scored on all items"
    assert evomerge("resume", "study.yaml", "--budget", 62).code == 0
    refused = evomerge("resume", "study.yaml", "--budget", 60)
    assert (refused.code, "already asked for 6" in refused.err) == (5, True)
    assert evomerge("verify").code == 0


@pytest.mark.parametrize(
    ("evaluation", "strategy", "message"),
    [
        ("{stop: race}", "{name: m2n2}", "needs every score whole"),
        ("{stop: race, first: 100000}", "{name: random}", "make first smaller"),
        ("{replicates: 3}", "{name: random}", "same score each time"),
        ("{stop: soon}", "{name: random}", "stop"),
        ("{stop: race, confidence: 1.5}", "{name: random}", "confidence"),
        ("{estimator: irt}", "{name: random}", "set evaluation.stop: race"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_evaluation(
    evomerge: Any, study: Path, evaluation: str, strategy: str, message: str
) -> None:
    raced(study, evaluation, strategy)
    ended = evomerge("check", "study.yaml")
    assert ended.code != 0
    assert message in ended.err
    assert not (study.parent / "study.db").exists()
