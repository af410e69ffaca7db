"""A model whose head is tied to its embeddings, with the head as a tensor of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evomerge.merge.kinds import is_embeddings
from evomerge.merge.source import Source, View
from evomerge.merge.tensorfile import Array, Entry, Floats

_HEAD = re.compile(r"(.+\.)?lm_head\.weight")


class Untied(View):
    """``head``, which the origin does not store, is a copy of its embeddings; the rest is as it is."""

    def __init__(self, origin: Source, head: str, embeddings: str) -> None:
        super().__init__(f"head {head}", [origin])
        self._names = {head: embeddings}
        entry = replace(origin.entries[embeddings], name=head)
        self.entries: Mapping[str, Entry] = {**origin.entries, head: entry}
        self.notes = (*self.notes, f"its {head} is tied to {embeddings}, and is merged as a tensor of its own")

    def stored(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """The origin's."""
        return self.origins[0].stored(self._names.get(name, name), start, stop)

    def floats(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """The origin's."""
        return self.origins[0].floats(self._names.get(name, name), start, stop)

    def export_dtype(self, name: str) -> str:
        """The origin's."""
        return self.origins[0].export_dtype(self._names.get(name, name))

    def _fingerprint(self, name: str) -> str:
        return self.origins[0].fingerprint(self._names.get(name, name))

    def config(self) -> dict[str, Any]:
        """The origin's, with the head apart."""
        return {**self.origins[0].config(), "tie_word_embeddings": False}


def with_heads(sources: Mapping[str, Source], reference: str) -> dict[str, Source]:
    """The sources, each with a head of its own if one of them has one, or if the reference stores one."""
    heads = [next(filter(_HEAD.fullmatch, source.entries), None) for source in sources.values()]
    if len({head is None for head in heads}) == 1:
        return dict(sources)
    stored = [
        head
        for (name, source), head in zip(sources.items(), heads, strict=True)
        if head is not None and (name == reference or not idle_head(source, head))
    ]
    return {name: _untied(source, stored[0]) if stored else source for name, source in sources.items()}


def idle_head(source: Source, name: str) -> bool:
    """Whether a tensor is a stored head that says nothing, since it is tied to the embeddings."""
    if not _HEAD.fullmatch(name) or _ties(source.config()) is False:
        return False
    embeddings = _embeddings(source)
    return _ties(source.config()) is True or (
        embeddings is not None and source.fingerprint(name) == source.fingerprint(embeddings)
    )


def _untied(source: Source, head: str) -> Source:
    embeddings = _embeddings(source)
    if head in source.entries or embeddings is None or _ties(source.config()) is False:
        return source
    return Untied(source, head, embeddings)


def _embeddings(source: Source) -> str | None:
    found = [name for name in source.entries if is_embeddings(name)]
    return found[0] if len(found) == 1 else None


def _ties(config: Mapping[str, Any]) -> bool | None:
    """Whether a config says that the head is the embeddings; ``None``: that is left to the kind of model."""
    text = config.get("text_config")
    inner = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    found = config.get("tie_word_embeddings", inner)
    return found if isinstance(found, bool) else None
