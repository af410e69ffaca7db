"""The study files of ``strategies/examples`` run, over small models of the kind that they are about."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from evomerge import config
from evomerge.store import open_store
from evomerge.study.drive import begin, create
from evomerge.study.record import versions
from evomerge.testing.adapters import EQUAL, make_pool, random_adapters
from evomerge_fitness.mlp import save_mlp

EXAMPLES = Path(__file__).parents[2] / "strategies" / "examples"
SIZES = (64, 32, 10)


def train(tensors: dict[str, torch.Tensor], labels: range, steps: int) -> dict[str, torch.Tensor]:
    """The network after some Adam steps on the training digits with these labels."""
    from sklearn.datasets import load_digits

    x, y = (torch.from_numpy(array[:1437]) for array in load_digits(return_X_y=True))
    mine = torch.isin(y, torch.tensor(labels))
    found = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    optimizer = torch.optim.Adam(found.values(), lr=3e-3)
    for _ in range(steps):
        hidden = (x[mine].float() @ found["layers.0.weight"] + found["layers.0.bias"]).relu()
        loss = torch.nn.functional.cross_entropy(hidden @ found["layers.1.weight"] + found["layers.1.bias"], y[mine])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has seen all digits for a moment, and an expert for either half of them."""
    folder = tmp_path_factory.mktemp("examples")
    draw = torch.Generator().manual_seed(0)
    shapes = {"layers.0.weight": (64, 32), "layers.0.bias": (32,), "layers.1.weight": (32, 10), "layers.1.bias": (10,)}
    base = train({name: 0.1 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}, range(10), 3)
    experts = {"low": train(base, range(5), 20), "high": train(base, range(5, 10), 20)}
    for name, tensors in {"base": base, **experts}.items():
        save_mlp(folder / "models" / name, tensors, SIZES)
    return folder


def run(folder: Path, study: dict[str, object]) -> tuple[float, list[float]]:
    """The main objective of the final candidate, and of all on the search items."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    with open_store(f"memory://{uuid4().hex}") as store:
        outcome = begin(create(config.read(folder / "study.yaml")), store)
        assert (outcome.status, outcome.reason) == ("finished", "budget spent")
        found = [one.score for one in store.open(str(study["study"])).scores("search")]
        values = [score.objectives[0][1] for score in found if score is not None]
        return values[outcome.final or 0], values


@pytest.mark.parametrize("name", ["sakana_ps", "mergekit_evolve", "evo_merging"])
def test_the_example_finds_a_merge_that_knows_more_than_any_expert(home: Path, name: str) -> None:
    study = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    study["budget"]["evaluations"] = min(study["budget"]["evaluations"], 302)
    _, experts = run(home, study | {"study": "experts", "strategy": {"name": "random"}, "budget": {"evaluations": 2}})
    _, accuracies = run(home, study | {"objective": "accuracy"})
    assert len(accuracies) == study["budget"]["evaluations"]
    assert max(accuracies) > max(experts) + 0.1


@pytest.mark.parametrize("name", ["adamerging", "fisher", "ga", "map_elites", "optuna_tpe", "pcb", "stages"])
def test_the_example_runs(home: Path, name: str) -> None:
    extras = {"optuna_tpe": "optuna", "pcb": "nevergrad"}
    if name in extras:
        pytest.importorskip(extras[name], reason=f'pip install "evomerge[{extras[name]}]"')
    study = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    for member, path in study["pool"]["members"].items():
        file = home / "statistics" / f"{member}-fisher.safetensors"
        file.parent.mkdir(exist_ok=True)
        tensors = load_file(home / path / "model.safetensors")
        save_file({key: tensor.abs() + 0.01 for key, tensor in tensors.items()}, file)
    study["budget"]["evaluations"] = 30
    best, values = run(home, study)
    assert len(values) == 30
    assert best > np.median(values)


@pytest.mark.parametrize(("name", "library"), [("optuna_tpe", "optuna"), ("pcb", "nevergrad")])
def test_a_resume_compares_the_version_of_the_library_that_proposes(name: str, library: str) -> None:
    pytest.importorskip(library, reason=f'pip install "evomerge[{library}]"')
    assert versions(config.read(EXAMPLES / f"{name}.yaml").settings)[library] == version(library)
    assert library not in versions(config.read(EXAMPLES / "ga.yaml").settings)


def test_the_example_of_lorahub_searches_adapters(tmp_path: Path) -> None:
    make_pool(tmp_path / "adapters", random_adapters(EQUAL, 1))
    study = yaml.safe_load((EXAMPLES / "lorahub.yaml").read_text())
    (tmp_path / "adapters" / "base.safetensors").rename(tmp_path / "base.safetensors")
    study["pool"]["base"] = "base.safetensors"
    (tmp_path / "fitness.py").write_text(
        "import torch\n"
        "def loss(model, items, split):\n"
        "    return sum(float((one - 0.1).square().mean()) for one in model.parameters())\n"
        "def model(folder):\n"
        "    from evomerge.testing.adapters import SHAPES\n"
        "    made = torch.nn.Module()\n"
        "    for name, shape in SHAPES.items():\n"
        "        *path, leaf = name.split('.')\n"
        "        at = made\n"
        "        for part in path:\n"
        "            if part not in dict(at.named_children()):\n"
        "                at.add_module(part, torch.nn.Module())\n"
        "            at = getattr(at, part)\n"
        "        at.register_parameter(leaf, torch.nn.Parameter(torch.zeros(shape)))\n"
        "    return made\n"
    )
    study["fitness"]["skeleton"] = "fitness.py:model"
    best, losses = run(tmp_path, study)
    assert len(losses) == 42
    assert best < np.median(losses)


def test_the_example_of_frank_wolfe_betters_its_start(home: Path) -> None:
    study = yaml.safe_load((EXAMPLES / "frank_wolfe.yaml").read_text())
    (home / "study.yaml").write_text(yaml.safe_dump(study))
    with open_store(f"memory://{uuid4().hex}") as store:
        outcome = begin(create(config.read(home / "study.yaml")), store)
        whole = [one for one in store.open("frank-wolfe").scores("search") if one.candidate.request.ranges is None]
        losses = {one.candidate.number: one.score["cross_entropy"] for one in whole if one.score is not None}
    assert outcome.status == "finished"
    assert min(losses.values()) < losses[0]
