"""A study of three stages on digits, from the file to the model: select, learn coefficients, refine."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evomerge.store import open_store

STAGES = """\
study: staged
pool: {members: {low: models/low, noise: models/noise, high: models/high}}
fitness: {name: arrays, data: digits}
objective: cross_entropy
splits: {search: "0:600", selection: "600:1437", report: "1437:1797"}
strategy:
  name: stages
  stages:
    - strategy: {name: kshot, k: 2, diversity: 0.7}
    - strategy: {name: adamerging, coefficients: softmax, learning_rate: 0.1}
      evaluations: 8
    - strategy: {name: cma, space: {kind: linear, per_group: false}, sigma: 0.1, popsize: 6, score_members: false}
seed: 3
window: 6
budget: {evaluations: 29}
"""


@pytest.fixture
def staged(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two specialists, and a model that knows nothing."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "models/low", tmp_path / "models/noise")
    file = tmp_path / "models/noise/model.safetensors"
    random = np.random.default_rng(0)
    noise = {name: random.normal(0, 0.5, t.shape).astype(t.dtype) for name, t in load_file(file).items()}
    save_file(noise, file)
    (tmp_path / "study.yaml").write_text(STAGES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_stage_goes_on_from_the_last(evomerge: Any, staged: Path) -> None:
    ended = evomerge("run", "study.yaml", "--json")
    assert ended.code == 0, ended.err
    with open_store(f"sqlite:///{staged}/study.db") as store:
        scored = list(store.open("staged").scores("search"))
    origins = [one.candidate.origin for one in scored]
    assert origins == ["seed"] * 3 + ["adamerging"] * 8 + ["cma"] * 18
    sources = {source for one in scored[3:] for source in one.candidate.recipe.sources}
    assert sources == {"pool:low", "pool:high"}
    losses = [one.score["cross_entropy"] for one in scored if one.score is not None]
    assert losses[10] < losses[3] < min(losses[:3])
    assert min(losses) < losses[10]
    assert scored[4].candidate.parents == (3,)
    assert evomerge("verify").code == 0


def test_stopped_within_each_stage_it_is_the_same_study(evomerge: Any, staged: Path) -> None:
    assert evomerge("run", "study.yaml").code == 0
    assert evomerge("run", "study.yaml", "--name", "parts", "--budget", 2).code == 0
    for budget in (7, 20, 29):
        assert evomerge("resume", "study.yaml", "--name", "parts", "--budget", budget).code == 0
    with open_store(f"sqlite:///{staged}/study.db") as store:
        recipes = [
            [one.candidate.recipe.digest for one in store.open(name).scores("search")] for name in ("staged", "parts")
        ]
    assert recipes[0] == recipes[1]


def test_a_mistake_within_a_stage_names_its_line(evomerge: Any, staged: Path) -> None:
    (staged / "study.yaml").write_text(STAGES.replace("popsize: 6", "popsize: 2").replace("k: 2", "k: two"))
    ended = evomerge("check", "study.yaml")
    assert ended.code == 2
    assert "study.yaml:9: strategy.stages[0].strategy.k is 'two'; give a whole number > 0" in ended.err
    assert "study.yaml:12: strategy.stages[2].strategy.popsize is 2; give a whole number > 2" in ended.err


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("k: 2", "k: 9", "strategy 'stages': stage 1 (kshot): kshot with k = 9 needs at least 9 pool members"),
        ("coefficients: softmax, ", "", "stage 2 (adamerging): adamerging needs pool.base"),
        ("kind: linear", "kind: task_arithmetic", "stage 3 (cma): space.kind task_arithmetic needs pool.base"),
    ],
)
def test_a_stage_that_cannot_work_is_named_before_the_study_begins(
    evomerge: Any, staged: Path, old: str, new: str, why: str
) -> None:
    (staged / "study.yaml").write_text(STAGES.replace(old, new))
    ended = evomerge("check", "study.yaml")
    assert (ended.code, why in " ".join(ended.err.split())) == (2, True), ended.err
