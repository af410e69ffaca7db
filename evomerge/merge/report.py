"""How the models of a pool differ, and what there is of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.merge.layout import Layout, layer_of
from evomerge.merge.source import Source
from evomerge.merge.tensorfile import TensorFile
from evomerge.merge.tokens import FAST, tokens_of
from evomerge.merge.views.tied import idle_head
from evomerge.merge.views.vocabulary import Aligned
from evomerge.strategy import Group

_ARCHITECTURE = ("architectures", "model_type", "vocab_size", "hidden_size", "num_hidden_layers")
"""Keys of ``config.json`` that must agree; other differences only warn."""

_UNIMPORTANT = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"})
_VOCABULARIES = ("vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


@dataclass(frozen=True, slots=True)
class Differences:
    """``errors`` make a pool unusable; ``warnings`` are merely worth knowing."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberReport:
    """One source: where and what it is, all its parameters, bytes of its own files, and dtypes of the tensors there."""

    name: str
    path: str
    kind: str
    parameters: int
    bytes: int
    dtypes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class PoolReport:
    """The whole pool. ``parameters`` counts merged ones; ``vector_bytes`` is one model as a float32 vector."""

    sources: tuple[MemberReport, ...]
    base: str | None
    reference: str
    groups: tuple[Group, ...]
    parameters: int
    vector_bytes: int
    copied: tuple[str, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def describe(
    checkpoints: Mapping[str, Source], reference: str, base: str | None, layout: Layout, differences: Differences
) -> PoolReport:
    """The report of a pool."""
    shared = () if base is None else checkpoints[base].files
    return PoolReport(
        sources=tuple(_member(name, one, () if name == base else shared) for name, one in checkpoints.items()),
        base=base,
        reference=reference,
        groups=layout.groups,
        parameters=layout.size,
        vector_bytes=4 * layout.size,
        copied=layout.copied,
        errors=differences.errors,
        warnings=differences.warnings,
    )


def compare(checkpoints: Mapping[str, Source], reference: str, layout: Layout) -> Differences:
    """Every source against the reference: tensors, dtypes, configs, vocabularies."""
    errors: list[str] = []
    warnings: list[str] = []
    one = checkpoints[reference]
    for name, other in checkpoints.items():
        warnings += [f"{name}: {note}" for note in other.notes]
        if name != reference:
            errors += [f"{name}: {problem}" for problem in _depth_problems(one, other, layout)]
            errors += [f"{name}: {problem}" for problem in _tensor_problems(one, other, layout)]
            if not (isinstance(one, Aligned) and isinstance(other, Aligned)):
                folders = one.tokenizer_folder, other.tokenizer_folder
                errors += [f"{name}: {problem}" for problem in _vocabulary_problems(*folders)]
            warnings += [f"{name}: {note}" for note in _tensor_notes(one, other, layout)]
            for severe, note in _config_notes(one.config(), other.config()):
                (errors if severe else warnings).append(f"{name}: {note}")
    return Differences(tuple(errors), tuple(warnings))


def _member(name: str, checkpoint: Source, shared: Collection[TensorFile]) -> MemberReport:
    own = [file for file in checkpoint.files if file not in shared]
    return MemberReport(
        name=name,
        path=str(checkpoint.path),
        kind=checkpoint.describe(),
        parameters=sum(entry.size for entry in checkpoint.entries.values() if entry.floating),
        bytes=sum(file.nbytes for file in own),
        dtypes=tuple(sorted(Counter(entry.dtype for file in own for entry in file.entries.values()).items())),
    )


def _depth_problems(one: Source, other: Source, layout: Layout) -> Iterator[str]:
    """More or fewer layers, before all the tensors that are then too many or too few."""
    ours, theirs = (
        1 + max((layer_of(name) or 0 for name in source.entries if not layout.excludes(name)), default=0)
        for source in (one, other)
    )
    if ours != theirs:
        yield f"has {theirs} layers instead of {ours}; choose as many of its layers with pool.layers"


def _tensor_problems(one: Source, other: Source, layout: Layout) -> Iterator[str]:
    for slot in layout.slots:
        entry = other.entries.get(slot.name)
        if entry is None:
            yield f"has no tensor {slot.name!r} ({other.path})"
        elif entry.shape != slot.shape:
            shapes = f"{list(entry.shape)} instead of {list(slot.shape)}"
            yield f"tensor {slot.name!r} has shape {shapes} ({other.file_of(slot.name)})"
        elif not entry.floating:
            yield f"tensor {slot.name!r} has dtype {entry.dtype}, which cannot be merged ({other.file_of(slot.name)})"
    for name in other.entries:
        if name not in one.entries and not layout.excludes(name) and not idle_head(other, name):
            yield f"has the extra tensor {name!r} ({other.file_of(name)})"


def _tensor_notes(one: Source, other: Source, layout: Layout) -> Iterator[str]:
    kinds = Counter(
        (other.export_dtype(slot.name), one.export_dtype(slot.name))
        for slot in layout.slots
        if slot.name in other.entries and other.export_dtype(slot.name) != one.export_dtype(slot.name)
    )
    for (theirs, ours), count in sorted(kinds.items()):
        yield f"{count} tensors are stored as {theirs} instead of {ours}; arithmetic is in float32"
    for name in other.entries:
        if name not in one.entries and idle_head(other, name):
            yield f"stores {name!r}, which is tied to its embeddings; it is left out"
    for name in layout.copied:
        if name not in other.entries:
            yield f"has no tensor {name!r}; it is copied from the reference anyway"


def _config_notes(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    if not one or not other:
        return
    for key in sorted((one.keys() | other.keys()) - _UNIMPORTANT):
        if one.get(key) != other.get(key):
            ours, theirs = one.get(key, "absent"), other.get(key, "absent")
            yield key in _ARCHITECTURE, f"config.json has {key} {theirs!r:.80} instead of {ours!r:.80}"


def _vocabulary_problems(one: Path, other: Path) -> Iterator[str]:
    """Different vocabularies make rows of the embeddings mean different tokens: merging them is nonsense."""
    cure = "so its token numbers mean other words; set pool.vocabulary to union, to base or to one of the members"
    for name in _VOCABULARIES:
        if (one / name).is_file() and (other / name).is_file() and _digest(one / name) != _digest(other / name):
            yield f"{name} differs, {cure}"
    tokenizers = one / FAST, other / FAST
    if not all(path.is_file() for path in tokenizers) or _digest(tokenizers[0]) == _digest(tokenizers[1]):
        return
    ours, theirs = tokens_of(one) or {}, tokens_of(other) or {}
    if ours != theirs:
        differ = sum(1 for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        yield f"{FAST} has another vocabulary ({differ} tokens differ), {cure}"


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
