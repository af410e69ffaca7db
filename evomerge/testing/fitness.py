"""What every fitness must hold; inherit `FitnessContract` and say how to make one and a checkpoint for it.

    class TestMine(FitnessContract):
        def make(self, splits, folder): return MyFitness(MySettings(), splits)
        def checkpoint(self, folder): return write_tiny_model(folder)

A fitness with ``gets = "recipe"`` overrides ``subject`` instead of ``checkpoint``.
"""

from __future__ import annotations

import gc
import weakref
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from evomerge.candidate import Score, Split, check_score
from evomerge.fitness import Fitness, Splits

SPLITS = Splits(search=((0, 7), (9, 12)), selection=((12, 15),), report=((7, 9),))


class FitnessContract:
    """Inherit and override `make` and `checkpoint` (or `subject`); ``splits`` if the data has fewer than 15 items."""

    splits: Splits = SPLITS

    def make(self, splits: Splits, folder: Path) -> Fitness:
        """A fresh fitness on the same data every time; ``folder`` is an empty one, or the same as before."""
        raise NotImplementedError

    def checkpoint(self, folder: Path) -> Path:
        """A checkpoint folder, written below ``folder``, whose models the fitness can score."""
        raise NotImplementedError

    def subject(self, fitness: Fitness, folder: Path, number: int) -> Any:
        """What is scored: by default a skeleton whose weights are drawn for ``number``."""
        import torch

        model = fitness.skeleton(self.checkpoint(folder))
        generator = torch.Generator().manual_seed(number)
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        return model

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        (tmp_path / "data").mkdir()
        return tmp_path / "data"

    @pytest.fixture
    def fitness(self, data: Path) -> Fitness:
        return self.make(self.splits, data)

    def test_settings_are_a_frozen_dataclass(self, fitness: Fitness) -> None:
        assert is_dataclass(fitness.Settings)
        assert fitness.Settings.__dataclass_params__.frozen  # type: ignore[attr-defined]

    def test_objectives_are_named_and_fixed(self, fitness: Fitness, data: Path) -> None:
        names = [objective.name for objective in fitness.objectives]
        assert names
        assert len(set(names)) == len(names)
        assert fitness.objectives == self.make(self.splits, data).objectives

    def test_every_split_has_its_size_or_no_single_items(self, fitness: Fitness) -> None:
        sizes = [fitness.items(split) for split in get_args(Split)]
        assert sizes in ([self.splits.size(split) for split in get_args(Split)], [0, 0, 0])

    def test_check_accepts_what_can_be_scored(self, fitness: Fitness, tmp_path: Path) -> None:
        if fitness.gets == "model":
            fitness.check(self.checkpoint(tmp_path))

    def test_skeleton_is_in_evaluation_mode_without_gradients(self, fitness: Fitness, tmp_path: Path) -> None:
        if fitness.gets == "recipe":
            return
        model = fitness.skeleton(self.checkpoint(tmp_path))
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())

    @pytest.mark.parametrize("split", get_args(Split))
    def test_a_score_is_whole(self, fitness: Fitness, tmp_path: Path, split: Split) -> None:
        score = fitness.score(self.subject(fitness, tmp_path, 1), split)
        items = fitness.items(split)
        check_score(score, items or None)
        assert [name for name, _ in score.objectives] == [objective.name for objective in fitness.objectives]
        assert all(type(value) is float for _, value in score.objectives)
        assert score.items is None or score.items.dtype.kind in "bf"
        assert score.losses is None or score.losses.dtype.kind == "f"
        if items:
            assert score.items is not None

    def test_scoring_is_pure(self, fitness: Fitness, tmp_path: Path) -> None:
        """Score A, B and A again: nothing is left behind, and nothing handed out changes later."""
        one, two = (self.subject(fitness, tmp_path, number) for number in (1, 2))
        first = fitness.score(one, "search")
        kept = _copy(first)
        other = fitness.score(two, "search")
        assert_same(first, kept)
        assert_same(fitness.score(one, "search"), kept)
        assert_same(fitness.score(two, "search"), other)

    def test_a_fresh_fitness_gives_the_same_score(self, fitness: Fitness, data: Path, tmp_path: Path) -> None:
        score = fitness.score(self.subject(fitness, tmp_path, 1), "search")
        fresh = self.make(self.splits, data)
        fresh.score(self.subject(fresh, tmp_path, 2), "report")
        assert_same(fresh.score(self.subject(fresh, tmp_path, 1), "search"), score)
        assert fresh.fingerprint() == fitness.fingerprint()

    def test_items_come_in_the_order_of_the_splits(self, fitness: Fitness, data: Path, tmp_path: Path) -> None:
        start, stop = self.splits.search[0]
        middle = (start + stop) // 2
        swapped = self.make(Splits(search=((middle, stop), (start, middle))), data)
        whole = self.make(Splits(search=((start, stop),)), data)
        one, two = (each.score(self.subject(each, tmp_path, 1), "search") for each in (swapped, whole))
        for mine, straight in ((one.items, two.items), (one.losses, two.losses)):
            if mine is not None and straight is not None:
                np.testing.assert_allclose(np.roll(mine, middle - start), straight, rtol=1e-5, atol=1e-6)

    def test_some_items_are_scored_as_among_all(self, fitness: Fitness, tmp_path: Path) -> None:
        if not fitness.parts:
            return
        model, size = self.subject(fitness, tmp_path, 1), fitness.items("search")
        whole = fitness.score(model, "search")
        for places in (np.array([size - 1, 0, 3]), np.array([2]), np.arange(size)):
            part = check_score(fitness.score_part(model, "search", places), len(places))
            assert [name for name, _ in part.objectives] == [name for name, _ in whole.objectives]
            for mine, all_of_them in ((part.items, whole.items), (part.losses, whole.losses)):
                assert (mine is None) == (all_of_them is None)
                if mine is not None and all_of_them is not None:
                    np.testing.assert_allclose(mine, all_of_them[places], rtol=1e-5, atol=1e-6)

    def test_loss_terms_add_up_to_the_mean_loss_and_can_be_differentiated(
        self, fitness: Fitness, tmp_path: Path
    ) -> None:
        if not fitness.slopes:
            return
        model, size = self.subject(fitness, tmp_path, 1), fitness.items("search")
        losses = fitness.score(model, "search").losses
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        for places in (None, np.array([size - 1, 0, 3])):
            terms = list(fitness.loss_terms(model, "search", places))
            sum(terms).backward()
            if losses is not None:
                mean = (losses if places is None else losses[places]).mean(dtype=np.float64)
                np.testing.assert_allclose(sum(term.item() for term in terms), mean, rtol=1e-5, atol=1e-6)
        assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())

    def test_items_come_in_kinds_or_do_not(self, fitness: Fitness, tmp_path: Path) -> None:
        self.subject(fitness, tmp_path, 1)
        strata = fitness.strata("search")
        assert strata is None or (strata.shape == (fitness.items("search"),) and strata.min() >= 0)

    def test_the_model_is_left_as_it_was(self, fitness: Fitness, tmp_path: Path) -> None:
        model = self.subject(fitness, tmp_path, 1)
        before = _weights(fitness, model)
        fitness.score(model, "search")
        assert _weights(fitness, model) == before

    def test_no_model_is_kept(self, fitness: Fitness, tmp_path: Path) -> None:
        model = self.subject(fitness, tmp_path, 1)
        fitness.score(model, "search")
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None


def assert_same(one: Score, two: Score) -> None:
    """Equal bit for bit, cost and notes aside."""
    assert one.objectives == two.objectives
    for mine, other in ((one.items, two.items), (one.losses, two.losses)):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            assert mine.dtype == other.dtype
            np.testing.assert_array_equal(mine, other)


def _copy(score: Score) -> Score:
    items, losses = (None if values is None else values.copy() for values in (score.items, score.losses))
    return Score(score.objectives, items, losses)


def _weights(fitness: Fitness, model: Any) -> Any:
    if fitness.gets == "recipe":
        return repr(model)
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
