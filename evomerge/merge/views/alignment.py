"""Which vocabulary a pool has, and its sources under it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evomerge.errors import PoolError
from evomerge.merge.source import Source
from evomerge.merge.tokens import Tokens, extended, replacing, required, tokens_of, union
from evomerge.merge.views.vocabulary import ABSENT, Aligned, Chosen, Rows, Vocabulary, rows_of, tensors_of
from evomerge.settings import PoolSettings, TokenSettings


def with_padding(sources: Mapping[str, Source], reference: str, multiple: int) -> dict[str, Source]:
    """The sources with as many rows of embeddings as the reference, rounded up to a multiple.

    Only padding is added or cut: sources that have other tokens, or unknown ones, are left as they are.
    """
    rows = {name: rows_of(source) for name, source in sources.items()}
    own = rows[reference]
    size = None if own is None else -(-own // multiple) * multiple
    tokens = tokens_of(sources[reference].tokenizer_folder)
    if size is None or set(rows.values()) == {size} or not tokens or max(tokens.values()) >= size:
        return dict(sources)
    alike = {
        name: source
        for name, source in sources.items()
        if rows[name] is not None and (name == reference or tokens_of(source.tokenizer_folder) == tokens)
    }
    _check_tensors(alike, reference)
    vocabulary = Vocabulary(
        tokens=tokens,
        size=size,
        sources=alike,
        rows={name: _padded(size, rows[name] or 0) for name in alike},
        base=reference,
        files={},
    )
    return {
        name: Aligned(name, vocabulary) if name in alike and rows[name] != size else source
        for name, source in sources.items()
    }


def _padded(size: int, rows: int) -> Rows:
    numbers = np.arange(size)
    numbers[rows:] = ABSENT
    return numbers


def with_tokens(
    sources: Mapping[str, Source], reference: str, base: str | None, chosen: str | Path, settings: PoolSettings
) -> dict[str, Source]:
    """The sources under one vocabulary: the ``union`` of theirs (from the reference's on), or that of a folder.

    Raises:
        PoolError: a tokenizer that cannot be read or extended, embeddings or a rule's rows that are not found.
    """
    folder, multiple = sources[reference].folder, settings.pad_vocabulary
    home = chosen if isinstance(chosen, Path) else sources[reference].tokenizer_folder
    others = [source.tokenizer_folder for name, source in sources.items() if name != reference]
    if isinstance(chosen, Path) and settings.tokens.keys() <= required(chosen).keys():
        tokens, files = required(chosen), replacing(chosen, folder)
    else:
        tokens, text = union(home, [] if isinstance(chosen, Path) else others, settings.tokens)
        files = extended(text, home, folder)
    size = -(-(max(tokens.values()) + 1) // multiple) * multiple
    _check_tensors(sources, reference)
    vocabulary = Vocabulary(
        tokens=tokens,
        size=size,
        sources=sources,
        rows={name: _rows(source, tokens, size) for name, source in sources.items()},
        base=base,
        files={reference: files},
        chosen={tokens[token]: _chosen(token, rule, sources, base) for token, rule in settings.tokens.items()},
    )
    return {name: Aligned(name, vocabulary) for name in sources}


def _chosen(token: str, rule: TokenSettings, sources: Mapping[str, Source], base: str | None) -> Chosen:
    """What a rule of ``pool.tokens`` says."""
    place = f"pool.tokens.{token}"
    name = base if rule.source == "base" and base is not None else rule.source
    if name is None:
        if rule.token is not None:
            raise PoolError(f"{place} names {rule.token!r} of no source; say whose it is as source, or leave it out")
        return Chosen(None, 0, rule.force)
    if name not in sources:
        raise PoolError(f"{place}: the pool has no {name!r}, but {', '.join(sources)}; correct the source")
    if isinstance(rule.token, int):
        row = rule.token
    else:
        wanted = token if rule.token is None else rule.token
        row = required(sources[name].tokenizer_folder).get(wanted, ABSENT)
        if row == ABSENT:
            raise PoolError(f"{place}: {name} has no token {wanted!r}; name one that it has, or another source")
    count = rows_of(sources[name]) or 0
    if row >= count:
        raise PoolError(f"{place}: {name} has no row {row}, but {count} rows of embeddings; name another")
    return Chosen(name, row, rule.force)


def _rows(source: Source, tokens: Tokens, size: int) -> Rows:
    """Which of the source's rows stands for each number."""
    own, count = required(source.tokenizer_folder), rows_of(source) or 0
    rows = np.full(size, ABSENT)
    for token, number in tokens.items():
        row = own.get(token, ABSENT)
        if row < count:
            rows[number] = row
    return rows


def _check_tensors(sources: Mapping[str, Source], reference: str) -> None:
    """Every source must have the reference's embeddings and head, of one width."""
    wanted = {name: sources[reference].entries[name].shape[1:] for name in tensors_of(sources[reference])}
    for member, source in sources.items():
        found = {name: source.entries[name].shape[1:] for name in tensors_of(source)}
        if not found or found != wanted:
            theirs = ", ".join(f"{name} {list(shape)}" for name, shape in found.items()) or "none"
            ours = ", ".join(f"{name} {list(shape)}" for name, shape in wanted.items()) or "none"
            raise PoolError(
                f"{member}: its embeddings and head ({theirs}, beside the vocabulary) are not those of {reference} "
                f"({ours}), so they cannot get one vocabulary; take the models that differ out of the pool"
            )
