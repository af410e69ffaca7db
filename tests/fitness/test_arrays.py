from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import ConfigError
from evomerge.fitness import Fitness, Splits
from evomerge.testing.fitness import FitnessContract
from evomerge_fitness.arrays import ArrayClassification, ArraySettings
from evomerge_fitness.judging import Judge
from evomerge_fitness.mlp import MLP, MLPConfig, save_mlp

SEEDS = Path(__file__).parents[1] / "data"
DIGITS = Splits(search=((0, 1437),), report=((1437, 1797),))


def save_data(path: Path, items: int = 15, features: tuple[int, ...] = (6,), classes: int = 3) -> None:
    random = np.random.default_rng(0)
    np.savez(path, x=random.normal(size=(items, *features)), y=random.integers(0, classes, items))


class TestArraysContract(FitnessContract):
    def make(self, splits: Splits, folder: Path) -> Fitness:
        save_data(folder / "data.npz")
        return ArrayClassification(ArraySettings(str(folder / "data.npz"), scale=0.5), splits)

    def checkpoint(self, folder: Path) -> Path:
        save_mlp(folder / "mlp", MLP(MLPConfig((6, 5, 3))).state_dict(), (6, 5, 3))
        return folder / "mlp"


class TestArraysOfAnyModuleContract(TestArraysContract):
    """Any module goes the plain way, in batches."""

    def make(self, splits: Splits, folder: Path) -> Fitness:
        save_data(folder / "data.npz")
        return Plain(ArraySettings(str(folder / "data.npz"), batch=4), splits)


class Plain(ArrayClassification):
    """Scores a module that is no `MLP`."""

    def skeleton(self, folder: Path) -> torch.nn.Module:
        return torch.nn.Sequential(super().skeleton(folder)).eval()


def published(seed: int) -> MLP:
    """A seed model of the published digits experiment."""
    vector = torch.from_numpy(np.load(SEEDS / "m2n2_digits_seeds.npz")[f"seed_{seed}"])
    model = MLP(MLPConfig((64, 256, 10)))
    at = 0
    for parameter in model.parameters():
        parameter.copy_(vector[at : at + parameter.numel()].view(parameter.shape))
        at += parameter.numel()
    assert at == len(vector)
    return model


@pytest.mark.parametrize(("seed", "train", "test"), [(1, 709, 158), (2, 692, 166)])
def test_published_seeds_score_as_published(seed: int, train: int, test: int) -> None:
    fitness = ArrayClassification(ArraySettings(), DIGITS)
    score = fitness.score(published(seed), "search")
    assert score.items is not None
    assert score["accuracy"] == train / 1437
    assert score.items.dtype == bool
    row = np.load(SEEDS / "m2n2_digits_replay.npz")["seed_rows"][seed - 1]
    np.testing.assert_array_equal(score.items, np.unpackbits(row)[:1437].astype(bool))
    assert fitness.score(published(seed), "report")["accuracy"] == test / 360


@pytest.mark.parametrize("threads", [1, 2])
def test_digits_equal_a_plain_reference(threads: int) -> None:
    fitness, model = ArrayClassification(ArraySettings(), DIGITS), published(1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        score = fitness.score(model, "search")
    finally:
        torch.set_num_threads(before)
    x, y = (torch.from_numpy(array[:1437]) for array in fitness._data)
    logits = model(x)
    np.testing.assert_array_equal(score.items, (logits.argmax(1) == y).numpy())
    losses = torch.nn.functional.cross_entropy(logits, y, reduction="none").numpy()
    np.testing.assert_allclose(score.losses, losses, rtol=1e-4, atol=1e-5)
    assert score["cross_entropy"] == pytest.approx(losses.mean(), rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_ties_go_to_the_first_class(data: st.DataObject) -> None:
    classes, items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    logits = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=classes * items, max_size=classes * items))
    )
    logits = logits.reshape(classes, items).astype(np.float32)
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=items, max_size=items)), dtype=np.int64)
    correct = Judge(labels, "data").correct(torch.from_numpy(logits))
    np.testing.assert_array_equal(correct, logits.argmax(0) == labels)


def test_nan_is_never_right() -> None:
    logits = torch.tensor([[float("nan"), 1.0], [0.0, 2.0]])
    assert Judge(np.array([0, 1]), "data").correct(logits).tolist() == [False, True]


def test_without_losses_there_is_accuracy_alone() -> None:
    fitness = ArrayClassification(ArraySettings(losses=False), DIGITS)
    assert [objective.name for objective in fitness.objectives] == ["accuracy"]
    score = fitness.score(published(1), "search")
    assert score.losses is None
    assert score["accuracy"] == 709 / 1437


def test_one_fitness_scores_models_of_two_shapes(tmp_path: Path) -> None:
    save_data(tmp_path / "data.npz")
    fitness = ArrayClassification(ArraySettings(str(tmp_path / "data.npz")), Splits(((0, 15),)))
    for sizes in ((6, 5, 3), (6, 4), (6, 5, 3)):
        model = MLP(MLPConfig(sizes))
        for parameter in model.parameters():
            parameter.fill_(0.1)
        assert fitness.score(model, "search").items is not None


def test_paths_start_at_the_study_file(tmp_path: Path) -> None:
    save_data(tmp_path / "data.npz")
    fitness = ArrayClassification(ArraySettings("data.npz"), Splits(((0, 15),)))
    fitness.root = tmp_path
    assert len(fitness.indices("search")) == 15


def test_fingerprint_follows_the_data(tmp_path: Path) -> None:
    def digest(scale: float) -> object:
        return ArrayClassification(ArraySettings(str(tmp_path / "d.npz"), scale), Splits(((0, 9),))).fingerprint()

    save_data(tmp_path / "d.npz")
    first = digest(1.0)
    assert first == digest(1.0)
    assert first != digest(2.0)
    save_data(tmp_path / "d.npz", items=16)
    assert first != digest(1.0)


def complain(path: Path, message: str, sizes: tuple[int, ...] = (6, 5, 3), splits: Splits | None = None) -> None:
    checkpoint = path.parent / "mlp"
    save_mlp(checkpoint, MLP(MLPConfig(sizes)).state_dict(), sizes)
    with pytest.raises(ConfigError, match=message):
        ArrayClassification(ArraySettings(str(path)), splits or Splits(((0, 15),))).check(checkpoint)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((15, 6))}, "no array 'y'"),
        ({"x": np.zeros(15), "y": np.zeros(15, int)}, "items first, then features"),
        ({"x": np.array([["a"]] * 15), "y": np.zeros(15, int)}, "must be numbers"),
        ({"x": np.zeros((14, 6)), "y": np.zeros(15, int)}, "14 items and y has 15"),
        ({"x": np.zeros((15, 6)), "y": np.zeros(15)}, "whole number per item"),
        ({"x": np.zeros((0, 6)), "y": np.zeros(0, int)}, "empty"),
        ({"x": np.full((15, 6), np.nan), "y": np.zeros(15, int)}, "not finite, first in item 0"),
        ({"x": np.zeros((15, 6)), "y": np.full(15, -1)}, "label -1"),
        ({"x": np.zeros((15, 6)), "y": np.arange(15)}, "label 14 at item 14 .*classes are 0 to 2"),
        ({"x": np.zeros((15, 7)), "y": np.zeros(15, int)}, "7 features per item, but the model takes 6"),
        ({"x": np.zeros((9, 6)), "y": np.zeros(9, int)}, "only 9"),
        ({"x": np.array([[None]] * 15, dtype=object), "y": np.zeros(15, int)}, "cannot read arrays"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    complain(tmp_path / "data.npz", message)


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    complain(tmp_path / "none.npz", "no data file")
    (tmp_path / "text.npz").write_text("hello")
    complain(tmp_path / "text.npz", "cannot read arrays")
    np.save(tmp_path / "single.npy", np.zeros(3))
    complain(tmp_path / "single.npy", "single array")


def test_an_empty_split_cannot_be_scored(tmp_path: Path) -> None:
    fitness = ArrayClassification(ArraySettings(), Splits(((0, 10),)))
    with pytest.raises(ConfigError, match=r"splits\.selection is empty"):
        fitness.score(published(1), "selection")


@pytest.mark.parametrize("kind", [ArrayClassification, Plain])
def test_slopes_may_be_those_of_the_entropy_of_predictions(kind: type[ArrayClassification], tmp_path: Path) -> None:
    save_data(tmp_path / "data.npz")
    save_mlp(tmp_path / "mlp", MLP(MLPConfig((6, 5, 3))).state_dict(), (6, 5, 3))
    chosen = ArraySettings(str(tmp_path / "data.npz"), batch=4, slope_loss="entropy")
    fitness = kind(chosen, Splits(search=((0, 12),)))
    model = fitness.skeleton(tmp_path / "mlp")
    for scale, low, high in ((1.0, 0.0, float(np.log(3))), (1e6, 0.0, 1e-3), (0.0, np.log(3) - 1e-6, np.log(3) + 1e-6)):
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                values = torch.from_numpy(np.random.default_rng(number).normal(size=tuple(parameter.shape)))
                parameter.copy_(values * scale)
        entropy = sum(term.item() for term in fitness.loss_terms(model, "search"))
        logits = fitness.logits(model, "search").double().numpy()
        chances = np.exp(logits - logits.max(axis=0)) / np.exp(logits - logits.max(axis=0)).sum(axis=0)
        expected = -(chances * np.log(np.maximum(chances, 1e-300))).sum(axis=0).mean()
        assert entropy == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert low - 1e-9 <= entropy <= high + 1e-6
