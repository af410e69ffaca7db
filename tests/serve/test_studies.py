"""Whole studies over HTTP: the same, bit for bit, as on the pool itself."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge import config
from evomerge.candidate import Score
from evomerge.cli.databases import ENVIRONMENT
from evomerge.errors import ConfigError, ResumeError, ServiceError, SpentError
from evomerge.serve.opened import open_pool, read
from evomerge.store import open_store
from evomerge.store.port import Store
from evomerge.study import drive, trial

Running = Any
Serve = Any
SPLITS = 'splits: {search: "0:400", selection: "1437:1500", report: "1617:1700"}'
LOCAL = f"fitness: {{name: arrays, data: digits}}\npool: {{members: {{low: models/low, high: models/high}}}}\n{SPLITS}"
STRATEGIES = {
    "random": "{name: random}",
    "cma": "{name: cma, popsize: 6}",
    "m2n2": "{name: m2n2, population: 8}",
}


def remote(server: Running, **settings: Any) -> str:
    settings = {"patience": 20} | settings
    own = "".join(f", {key}: {value}" for key, value in settings.items())
    return f'fitness: {{name: pool_server, url: "{server.url}"{own}}}\n{SPLITS}'


def study_file(folder: Path, where: str, strategy: str, budget: int = 40, more: str = "") -> config.StudyFile:
    text = f"study: one\nseed: 3\n{where}\nstrategy: {STRATEGIES[strategy]}\nbudget: {{evaluations: {budget}}}\n{more}"
    (folder / "study.yaml").write_text(text)
    return config.read(folder / "study.yaml")


def run(file: config.StudyFile, store: Store | None = None) -> Any:
    """All that a study found."""
    store = store or fresh()
    drive.begin(drive.create(file), store)
    return found(store)


def fresh() -> Store:
    return open_store("memory://" + uuid.uuid4().hex)


def _rows(score: Score) -> tuple[Any, Any]:
    return score.items, score.losses


def _bits(array: Any) -> Any:
    return None if array is None else (array.dtype, array.tobytes())


def found(store: Store) -> Any:
    study = store.open("one")
    told = [
        [
            (one.candidate.number, one.candidate.recipe.digest, one.score.objectives, *map(_bits, _rows(one.score)))
            for one in study.scores(split)
            if one.score is not None
        ]
        for split in ("search", "selection", "report")
    ]
    assert len(told[0]) == study.summary().told
    return told, study.summary().final


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_study_over_http_is_the_same_study(home: Path, tmp_path: Path, serve: Serve, strategy: str) -> None:
    server = serve()
    here = run(study_file(home, LOCAL, strategy))
    there = run(study_file(tmp_path, remote(server), strategy))
    waiting = run(study_file(tmp_path, remote(server), strategy, more="executor: {kind: threads, workers: 6}"))
    assert here == there == waiting


def test_descendants_survive_a_server_that_forgets(home: Path, tmp_path: Path, serve: Serve) -> None:
    """Room for one recipe only: ancestors are sent along whenever they are wanted."""
    from dataclasses import replace

    from evomerge.serve.opened import Opened

    file = read(home / "server.yaml")
    opened: Opened = open_pool(replace(file.settings, merge=replace(file.settings.merge, cache_mb=1)), file.root)
    forgetful = serve(opened)
    forgetful.service._recipes["anyone"]._limit = 1
    here = run(study_file(home, LOCAL + "\nmerge: {cache_mb: 1}", "m2n2"))
    assert run(study_file(tmp_path, remote(forgetful), "m2n2")) == here


def test_a_study_stops_when_the_server_goes_and_resumes_when_it_is_back(
    home: Path, tmp_path: Path, serve: Serve, opened: Any
) -> None:
    """At another address, even: where the server is changes no score, so it is no other study."""
    store, first = fresh(), serve()
    text = remote(first, patience=0.5)
    setup = drive.create(study_file(tmp_path, text, "m2n2"))
    answered = 0
    asked = first.service.ask

    async def breaking(*arguments: Any) -> Any:
        nonlocal answered
        answered += 1
        if answered > 15:
            raise RuntimeError("broken")
        return await asked(*arguments)

    first.service.ask = breaking  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match=r"gave no usable answer.*evomerge resume"):
        drive.begin(setup, store)
    assert 0 < store.open("one").summary().told < 40
    assert store.open("one").summary().failed == 0
    first.service.ask = asked  # type: ignore[method-assign]
    second = serve()
    drive.resume(store, "one", study_file(tmp_path, remote(second), "m2n2"), allow_changed=True)
    assert found(store) == run(study_file(home, LOCAL, "m2n2"))


def test_another_pool_behind_the_same_address_is_refused(home: Path, tmp_path: Path, serve: Serve) -> None:
    store = fresh()
    drive.begin(drive.create(study_file(tmp_path, remote(serve()), "random", 5)), store)
    text = (home / "server.yaml").read_text()
    swapped_text = text.replace("models/low, high: models/high", "models/high, high: models/low")
    (home / "swapped.yaml").write_text(swapped_text)
    swapped = read(home / "swapped.yaml")
    other = serve(open_pool(swapped.settings, swapped.root))
    with pytest.raises(ResumeError, match="pool content server"):
        drive.resume(store, "one", study_file(tmp_path, remote(other), "random", 8), budget=8, allow_changed=True)


def test_a_spent_budget_stops_and_the_next_run_goes_on(home: Path, tmp_path: Path, serve: Serve) -> None:
    store = fresh()
    file = study_file(tmp_path, remote(serve(), max_items=400 * 25), "random", 40)
    with pytest.raises(SpentError, match=r"10000 of this run's 10000 items.*max_items"):
        drive.begin(drive.create(file), store)
    drive.resume(store, "one", file)
    assert found(store) == run(study_file(home, LOCAL, "random"))


def test_a_quota_at_the_server_stops_the_study(tmp_path: Path, serve: Serve, monkeypatch: Any) -> None:
    server = serve(tokens=True, quota={"evaluations": 7})
    monkeypatch.setenv("POOL_TOKEN", str(server.token))
    store = fresh()
    with pytest.raises(ServiceError, match="quota of evaluations of this token is spent"):
        drive.begin(drive.create(study_file(tmp_path, remote(server, token_env="POOL_TOKEN"), "random")), store)
    assert store.open("one").summary().told == 7
    assert store.open("one").summary().failed == 0


def test_checking_costs_few_evaluations(tmp_path: Path, serve: Serve) -> None:
    """A server's evaluations are counted, so that none is timed for long."""
    server = serve()
    setup = drive.create(study_file(tmp_path, remote(server), "random"))
    estimate = trial.estimate(setup, drive.factory_of(setup))
    assert set(estimate.scores) == {"low", "high"}
    assert len(server.audit.read_text().splitlines()) <= 4
    assert [one.name for one in trial.report_of(setup).sources] == ["low", "high"]


def test_members_may_be_chosen(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    setup = drive.create(study_file(tmp_path, remote(server, members="[high]"), "random"))
    assert setup.problem.members == ("high",)
    with pytest.raises(ConfigError, match="no member 'middle'; name some of low, high"):
        drive.create(study_file(tmp_path, remote(server, members="[middle]"), "random"))


def test_what_does_not_fit_the_server_is_said_before_anything_is_asked(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    other = remote(server).replace("0:400", "0:500")
    with pytest.raises(ConfigError, match=r"splits.search is not what .* has, which is 0:400"):
        drive.create(study_file(tmp_path, other, "random"))
    with pytest.raises(ConfigError, match="brings its own pool"):
        drive.create(study_file(tmp_path, f"pool: {{members: {{a: b}}}}\n{remote(server)}", "random"))
    assert not server.audit.read_text()


def test_threads_are_for_servers_only(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"executor.kind is threads"):
        drive.create(study_file(home, LOCAL, "random", more="executor: {kind: threads}"))


WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors", "transformers", "sklearn", "numba", "ray"):
            raise ImportError(f"{name} is not wanted here")
sys.meta_path.insert(0, Refuse())
from evomerge.cli import main
sys.argv = ["evomerge", "run", "study.yaml"]
main()
"""


def test_neither_models_nor_torch_are_needed_on_this_side(tmp_path: Path, serve: Serve, monkeypatch: Any) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    study_file(tmp_path, remote(serve()), "m2n2", 20, "executor: {kind: threads, workers: 4}")
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "finished: budget spent (20 evaluations" in ended.stdout


def test_scores_of_some_items_are_those_of_the_whole(serve: Serve, tmp_path: Path) -> None:
    setup = drive.create(study_file(tmp_path, remote(serve()), "random"))
    from evomerge.blackbox import Family

    recipe = trial.mixture(("low", "high"), (0.3, 0.7), setup.problem.groups)
    whole = setup.fitness.score(Family(recipe), "search")
    places = np.array([7, 3, 250, 4])
    part = setup.fitness.score_part(Family(recipe), "search", places)
    assert whole.items is not None
    assert part.items is not None
    np.testing.assert_array_equal(part.items, whole.items[places])
    assert part["accuracy"] == part.items.mean()


@pytest.mark.parametrize("stop", ["race", "halving"])
def test_a_study_that_scores_some_items_first_is_the_same_study(
    home: Path, tmp_path: Path, serve: Serve, stop: str
) -> None:
    """In an order of items that does not look at their kinds, which only the server knows."""
    more = f"evaluation: {{order: random, stop: {stop}, first: 64}}\n"
    server = serve()
    here = run(study_file(home, LOCAL, "cma", more=more))
    there = run(study_file(tmp_path, remote(server), "cma", more=f"{more}executor: {{kind: threads, workers: 4}}"))
    assert here == there
    asked = [json.loads(line)["items"] for line in server.audit.read_text().splitlines()]
    assert min(asked) < 400
