"""The models of a mergekit YAML as a pool of ours: where they are, what they are called, which layers they give."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evomerge.merge.pool import BASE, ModelPool
from evomerge.recipes.file import HUB
from evomerge.recipes.mergekit.config import Config
from evomerge.recipes.mergekit.tokenizer import Token
from evomerge.settings import PoolSettings

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


class Models:
    """All models of a file.

    A relative path is looked for at each of the ``roots``, and written as it is right in the folder ``into``.
    """

    def __init__(self, config: Config, bases: Sequence[str | None], roots: Iterable[Path], into: Path) -> None:
        self._slices = config.slices
        self._roots = list(roots)
        self._tokenizer = config.tokenizer
        self._template = {"chat_template": config.chat_template} if config.chat_template else {}
        self._into = into
        references = list(dict.fromkeys(one.model for part in config.slices for one in part.inputs))
        base = config.base or next((one for one in bases if one is not None), None)
        others = [one for one in references if one != base]
        self.base = base if others else None
        """The reference that becomes ``pool.base``."""
        self.names = short_names(others or references, BASE if self.base else None)
        """What each is called in the recipe file."""
        self._members = dict(self.names)
        if self.base is not None:
            self.names[self.base] = BASE

    def pool(self) -> dict[str, Any]:
        """The recipe file's section."""
        base = {"base": self._located(self.base)} if self.base is not None else {}
        members = {name: self._located(reference) for reference, name in self._members.items()}
        layers = {name: ranges for reference, name in self.names.items() if (ranges := list(self._layers(reference)))}
        return {
            **base,
            "members": members,
            **({"layers": layers} if layers else {}),
            **self._vocabulary(),
            **self._template,
        }

    def _vocabulary(self) -> dict[str, Any]:
        if self._tokenizer is None:
            return {}
        source, multiple = self._tokenizer.source, self._tokenizer.multiple
        if source not in ("union", "base"):
            source = self.names.get(source) or self._located(source)
        tokens = {token: self._rule(rule) for token, rule in self._tokenizer.tokens.items()}
        return {
            "vocabulary": source,
            **({"tokens": tokens} if tokens else {}),
            **({"pad_vocabulary": multiple} if multiple > 1 else {}),
        }

    def _rule(self, rule: Token) -> dict[str, Any]:
        """What the recipe file says of a token's row."""
        said = {"source": rule.model and self.names[rule.model], "token": rule.token, "force": rule.force or None}
        return {key: value for key, value in said.items() if value is not None}

    def tensors(self) -> list[str]:
        """Names of all tensors that are merged.

        Raises:
            PoolError: a model is not at hand.
        """
        pool = self.pool()
        layers = {name: tuple(ranges) for name, ranges in pool.get("layers", {}).items()}
        opened = ModelPool.open(PoolSettings(pool["members"], pool.get("base"), layers=layers), self._into)
        return [slot.name for slot in opened.layout.slots]

    def _layers(self, reference: str) -> Iterator[str]:
        """Its layers in each slice, or any where it has none there; nothing if those are all its layers."""
        if self._slices[0].count is None:
            return
        ranges: list[tuple[int, int]] = []
        for part in self._slices:
            layers = next((one.layers for one in part.inputs if one.model == reference), None)
            for start, stop in [layers] if layers else [(0, 1)] * (part.count or 0):
                if ranges and ranges[-1][1] == start:
                    ranges[-1] = ranges[-1][0], stop
                else:
                    ranges.append((start, stop))
        if ranges != [(0, self._depth(reference))]:
            yield from (f"{start}:{stop}" for start, stop in ranges)

    def _located(self, reference: str) -> str:
        """A folder where there is one, and else a name on the hub, as in mergekit; likewise the adapter upon it."""
        return "+".join(self._part(part) for part in reference.split("+"))

    def _part(self, part: str) -> str:
        path, _, revision = part.partition("@")
        found = self._found(path)
        if found is not None:
            return path if Path(path).expanduser().is_absolute() else os.path.relpath(found, self._into)
        if _HUB_NAME.fullmatch(path):
            return f"{HUB}{path}@{revision}" if revision else f"{HUB}{path}"
        return path

    def _found(self, path: str) -> Path | None:
        places = (root / Path(path).expanduser() for root in self._roots)
        return next((place for place in places if place.exists()), None)

    def _depth(self, reference: str) -> int | None:
        """How many layers a model says it has, where it is at hand."""
        found = self._found(reference.partition("+")[0])
        if found is None or not (found / "config.json").is_file():
            return None
        try:
            count = json.loads((found / "config.json").read_text(encoding="utf-8")).get("num_hidden_layers")
        except (ValueError, AttributeError):  # said properly when the pool is opened
            return None
        return count if isinstance(count, int) else None


def short_names(references: Iterable[str], taken: str | None) -> dict[str, str]:
    """A name for each reference, from the end of its path; none is ``taken``."""
    found: dict[str, str] = {}
    used = {taken}
    for reference in references:
        last = Path(reference.rpartition("+")[2].partition("@")[0]).name
        stem = re.sub(r"\W+", "_", last).strip("_").lower() or "model"
        name, number = stem, 2
        while name in used:
            name, number = f"{stem}_{number}", number + 1
        used.add(name)
        found[reference] = name
    return found
