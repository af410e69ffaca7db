"""Real processes, really killed: a study that was SIGKILLed a hundred times equals one that was not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evomerge import config
from evomerge.store import open_store
from evomerge.study.drive import begin, create
from evomerge.testing.checkpoints import save_checkpoint
from evomerge.testing.mortal import history

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FITNESS = '''
import time

import numpy as np

from evomerge.candidate import Score


def score(recipe, indices, split):
    """Pure in (recipe, split), takes a moment, fails now and then."""
    word = int(recipe.digest[:15], 16)
    time.sleep(word % 5 / 2000)
    if word % 29 == 0 and recipe.ancestors:
        raise ValueError("made to fail")
    random = np.random.default_rng([word, len(split)])
    items = random.random(len(indices)) < 0.2 + 0.6 * random.random()
    return Score((("accuracy", float(items.mean())),), items, random.random(len(indices)).astype(np.float32))
'''

STRATEGIES = {
    "m2n2": "{name: m2n2, population: 8}",
    "cma": "{name: cma, popsize: 6}",
    "random": "{name: random}",
}


def study_file(folder: Path, strategy: str, executor: str = "{kind: inline}", budget: int = 600) -> Path:
    for number, member in enumerate(("low", "high", "odd")):
        weights = np.random.default_rng(number).standard_normal((8, 4)).astype(np.float32)
        save_checkpoint(folder / member / "model.safetensors", {"a.weight": weights, "b.weight": weights[0]})
    (folder / "chaosfit.py").write_text(FITNESS)
    path = folder / "study.yaml"
    path.write_text(
        f"""
study: haunted
seed: 5
pool:
  members: {{low: low, high: high, odd: odd}}
  groups: {{first: [a.*], second: [b.*]}}
fitness:
  {{name: callable, function: "chaosfit.py:score", objectives: {{accuracy: maximize}}, per_item: true, gets: recipe}}
splits: {{search: "0:60", selection: "60:90", report: "90:120"}}
strategy: {STRATEGIES[strategy]}
window: 4
budget: {{evaluations: {budget}}}
executor: {executor}
store: {{commit_every: 0.002, snapshot_every: 37}}
"""
    )
    return path


def undisturbed(file: Path) -> list[str]:
    with open_store("memory://undisturbed-" + file.parent.name) as store:
        begin(create(config.read(file)), store)
        return history(store.open("haunted"))


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("strategy", "backend"),
    [  # the contract runs all strategies over PostgreSQL
        ("m2n2", "sqlite"),
        ("cma", "sqlite"),
        ("random", "sqlite"),
        pytest.param("m2n2", "postgresql", marks=pytest.mark.pg),
    ],
)
def test_a_hundred_kills_lose_nothing(
    strategy: str, backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file = study_file(tmp_path, strategy)
    url = f"sqlite:///{tmp_path}/study.db" if backend == "sqlite" else request.getfixturevalue("postgres_url")
    script = Path(__file__).with_name("haunted.py")
    ended = subprocess.run(
        [sys.executable, script, file, url, "110", "1"], capture_output=True, text=True, timeout=250, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= 100
    with open_store(url) as store:
        study = store.open("haunted")
        assert study.summary().status == "finished"
        assert history(study) == undisturbed(file)


@pytest.mark.ray
@pytest.mark.timeout(200)
def test_one_two_and_four_workers_and_none_give_the_same_study(tmp_path: Path) -> None:
    histories = []
    for workers in (0, 1, 2, 4):
        folder = tmp_path / str(workers)
        executor = f"{{kind: ray, workers: {workers}, cpus: 0.5}}" if workers else "{kind: inline}"
        histories.append(undisturbed(study_file(folder, "m2n2", executor, budget=200)))
    assert histories[0] == histories[1] == histories[2] == histories[3]
