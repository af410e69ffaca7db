"""A user's own function as a fitness."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Score, Split, check_score
from evomerge.errors import ConfigError, EvaluationError
from evomerge.fitness import Fitness, Splits
from evomerge.strategy import Direction, Objective


@dataclass(frozen=True)
class CallableSettings:
    """Which function, and what it gives.

    ``function`` is ``package.module:name``, or ``file.py:name`` named from the study file's folder on. It is called
    with ``(model, indices, split)``: the live model (with ``gets: recipe`` the `Recipe`, and no weights are built), the
    item numbers of the split (int64), and the split's name. It returns a number, a dict of numbers, or a `Score`.
    ``objectives`` are the names it returns and which way is better, the main one first. With ``per_item`` it returns a
    `Score` whose ``items`` (and ``losses``, if it has any) hold one number per index, in order.
    ``noisy`` says that another call with the same model gives another score; the function is then called with a fourth
    argument, the number of the repetition.
    ``loss`` names a function that is called in the same way and returns the items' mean loss as a torch scalar, for
    strategies that ask for its slopes.
    ``skeleton`` builds the live model: ``auto`` by the checkpoint's ``config.json``, or a function of the checkpoint
    folder, named like ``function``.
    """

    function: str
    objectives: dict[str, Direction] = field(default_factory=lambda: {"score": "maximize"})
    per_item: bool = False
    noisy: bool = False
    gets: Literal["model", "recipe"] = "model"
    loss: str | None = None
    skeleton: str = "auto"


class CallableFitness(Fitness):
    """Scores by calling a function named in the study file, whose code is run: name only what you trust."""

    Settings = CallableSettings

    def __init__(self, settings: CallableSettings, splits: Splits) -> None:
        if not settings.objectives:
            raise ConfigError("fitness objectives are empty; name at least one, such as {score: maximize}")
        self.settings = settings
        self.splits = splits
        self.gets = settings.gets
        self.parts = self.losses = settings.per_item
        self.noisy = settings.noisy
        self.slopes = settings.loss is not None
        if self.slopes and settings.gets == "recipe":
            raise ConfigError("loss differentiates a model, but gets: recipe builds none; remove one of them")
        self._indices: dict[Split, NDArray[np.int64]] = {}

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives of the settings, in their order."""
        return tuple(Objective(name, direction) for name, direction in self.settings.objectives.items())

    def items(self, split: Split) -> int:
        """How many items the split has; 0 unless they are scored singly."""
        return self.splits.size(split) if self.settings.per_item else 0

    def skeleton(self, folder: Path) -> Any:
        """A live model of the folder's architecture, in evaluation mode and without gradients."""
        if self.settings.skeleton == "auto":
            from evomerge_fitness.skeletons import skeleton

            return skeleton(folder)
        build, _ = load_function(self.settings.skeleton, self.root)
        return build(folder).eval().requires_grad_(False)

    def check(self, folder: Path) -> None:
        """Import the function and, where it gets models, build one.

        Raises:
            EvomergeError: no such function, or no model for the folder.
        """
        _ = self._function
        if self.slopes:
            _ = self._loss
        if self.gets == "model":
            self.skeleton(folder)

    def fingerprint(self) -> Mapping[str, str]:
        """Digests of the files that hold the functions."""
        found = {self.settings.function: self._function[1]}
        if self.settings.loss is not None:
            found[self.settings.loss] = self._loss[1]
        contents = {name: b"" if file is None else file.read_bytes() for name, file in found.items()}
        return {name: hashlib.blake2b(content, digest_size=16).hexdigest() for name, content in contents.items()}

    def score(self, model: Any, split: Split) -> Score:
        """What the function returns, checked.

        Raises:
            EvaluationError: it returned something else than the settings promise. Its own errors pass through.
        """
        return self._checked(self._call(model, self._split(split), split, 0), self.items(split))

    def score_part(self, model: Any, split: Split, places: NDArray[np.int64], replicate: int = 0) -> Score:
        """What the function returns for the items at these places, checked.

        Raises:
            EvaluationError: it returned something else than the settings promise. Its own errors pass through.
        """
        return self._checked(self._call(model, self._split(split)[places], split, replicate), len(places))

    def loss_terms(self, model: Any, split: Split, places: NDArray[np.int64] | None = None) -> Iterator[Any]:
        """What ``settings.loss`` returns, in one piece.

        Raises:
            EvaluationError: it is no torch scalar that depends on the model.
        """
        import torch

        indices = self._split(split) if places is None else self._split(split)[places]
        function, _ = self._loss
        loss = function(model, indices, split)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise EvaluationError(f"{self.settings.loss} must return a torch scalar computed from the model")
        yield loss

    def _split(self, split: Split) -> NDArray[np.int64]:
        """Item numbers of a split, read only."""
        if split not in self._indices:
            ranges = [np.arange(start, stop) for start, stop in self.splits.ranges(split)]
            self._indices[split] = np.concatenate(ranges) if ranges else np.zeros(0, dtype=np.int64)
            self._indices[split].flags.writeable = False
        return self._indices[split]

    def _call(self, model: Any, indices: NDArray[np.int64], split: Split, replicate: int) -> Any:
        function, _ = self._function
        if self.settings.noisy:
            return function(model, indices, split, replicate)
        return function(model, indices, split)

    @cached_property
    def _function(self) -> tuple[Callable[..., Any], Path | None]:
        return load_function(self.settings.function, self.root)

    @cached_property
    def _loss(self) -> tuple[Callable[..., Any], Path | None]:
        return load_function(str(self.settings.loss), self.root)

    def _checked(self, result: Any, items: int) -> Score:
        if isinstance(result, Score):
            score = replace(result, objectives=self._named(dict(result.objectives)))
        else:
            score = Score(self._named(result))
        if self.settings.per_item != (score.items is not None):
            have = "no items" if score.items is None else "items"
            raise EvaluationError(f"{self.settings.function} returned {have}, but per_item: {self.settings.per_item}")
        return check_score(score, items or None)

    def _named(self, result: Any) -> tuple[tuple[str, float], ...]:
        """Named numbers in the settings' order, from a number or a dict."""
        wanted = self.settings.objectives
        values = result if isinstance(result, dict) else dict.fromkeys(list(wanted)[:1], result)
        if values.keys() != wanted.keys():
            have = ", ".join(map(repr, values)) if isinstance(result, dict) else "one number"
            raise EvaluationError(f"{self.settings.function} returned {have}, but objectives: {self._wanted}")
        for name, value in values.items():
            if isinstance(value, str) or not hasattr(value, "__float__"):
                kind = type(value).__name__
                raise EvaluationError(f"{self.settings.function} returned a {kind} for {name!r}; return a number")
        return tuple((name, float(values[name])) for name in wanted)

    @property
    def _wanted(self) -> str:
        return "{" + ", ".join(f"{name}: {way}" for name, way in self.settings.objectives.items()) + "}"


def load_function(name: str, root: Path) -> tuple[Callable[..., Any], Path | None]:
    """The function that ``package.module:name`` or ``file.py:name`` means, and the file it is in.

    Raises:
        ConfigError: the name has another form, or nothing callable is there.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ConfigError(f"{name!r} names no function; write package.module:function or file.py:function")
    module = _file_module(root / place) if place.endswith(".py") else _module(place)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"{place} has no function {attribute!r}; correct {name!r}")
    return function, None if module.__file__ is None else Path(module.__file__)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"cannot import {name!r}: {error}; install it, or name a file: file.py:function") from error


def _file_module(path: Path) -> Any:
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; correct the function's place")
    name = f"evomerge_user_{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up by name
    spec.loader.exec_module(module)
    return module
