"""A LoRA adapter over a base: which of the base's tensors it changes, and how.

PEFT names its tensors after modules of the live model (``base_model.model.`` + module + ``.lora_A.weight``, ...). Here
they are found again among the base's tensors, and every shape, rank and pair is checked before anything is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np

from evomerge.errors import PoolError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.source import Source
from evomerge.merge.tensorfile import Floats, pickle_refusal
from evomerge.merge.views.peft import CONFIG, WEIGHTS, AdapterConfig, read_config
from evomerge.merge.views.quantised import whole_precision

Form = Literal["linear", "transposed", "embedding"]

_PICKLED = "adapter_model.bin"
_PREFIX = "base_model.model."
_NAME = r"(?:\.[^.]+)?"  # of the adapter, where the state of a live model was saved as it is
_ROLES = tuple(
    (role, re.compile(rf"(.+)\.{pattern}$"))
    for role, pattern in (
        ("A", rf"lora_A{_NAME}\.weight"),
        ("B", rf"lora_B{_NAME}\.weight"),
        ("A embedding", rf"lora_embedding_A{_NAME}"),
        ("B embedding", rf"lora_embedding_B{_NAME}"),
        ("magnitude", rf"lora_magnitude_vector{_NAME}"),
        ("magnitude", rf"lora_magnitude_vector{_NAME}\.weight"),
        ("bias", rf"lora_B{_NAME}\.bias"),
    )
)


@dataclass(frozen=True)
class LowRank:
    """A low-rank change ``scale * B @ A`` of a tensor, seen as a matrix of its first axis and all the others.

    ``linear`` modules keep B (out x rank) and A (rank x in) as their files do. Where the tensor is stored the other way
    round (``transposed``: in x out; ``embedding``: tokens x width), B here is the file's A, transposed, and A its B.
    """

    file: Source = field(repr=False)
    first: str
    second: str
    shape: tuple[int, int]
    rank: int
    scale: float
    form: Form

    @property
    def B(self) -> Floats:
        """Rows x rank, a new float32 array."""
        read = self.file.floats(self.first)
        return read.reshape(self.shape[0], self.rank) if self.form == "linear" else _turned(read, self.rank)

    @property
    def A(self) -> Floats:
        """Rank x columns, a new float32 array."""
        read = self.file.floats(self.second)
        return read.reshape(self.rank, self.shape[1]) if self.form == "linear" else _turned(read, self.shape[1])


@dataclass
class Change:
    """All that an adapter does to one tensor of its base. The fields are names of tensors in the adapter's file.

    ``whole`` replaces it; ``factors`` add to it; ``bias`` times ``bias_scale`` adds to it; ``magnitude`` are then its
    norms (DoRA, arXiv:2402.09353): per row, or per column where it is stored transposed.
    """

    whole: str | None = None
    factors: LowRank | None = None
    bias: str | None = None
    bias_scale: float = 1.0
    magnitude: str | None = None

    @property
    def computes(self) -> bool:
        """Whether there is anything to compute, rather than to copy."""
        return self.factors is not None or self.bias is not None


class Adapter:
    """A PEFT LoRA folder, fitted to a base.

    ``changes`` are by name of the base's tensors, ``modules`` only the low-rank ones among them; ``file`` holds the
    adapter's own tensors, and ``rank`` is the largest of its ranks.

    Raises:
        PoolError: damaged, of an unsupported kind, or not made for this base; names file, tensor and cure.
    """

    def __init__(self, folder: Path, base: Source) -> None:
        self.folder = folder
        self.base = base
        self.config: AdapterConfig = read_config(folder)
        if not (folder / WEIGHTS).is_file() and (folder / _PICKLED).is_file():
            raise PoolError(pickle_refusal(folder / _PICKLED))
        self.file: Source = whole_precision(Checkpoint(folder / WEIGHTS))
        self.changes: Mapping[str, Change] = _Fitting(self).changes()

    @cached_property
    def modules(self) -> Mapping[str, LowRank]:
        """The low-rank changes by name of the base's tensor."""
        return {name: change.factors for name, change in self.changes.items() if change.factors is not None}

    @property
    def rank(self) -> int:
        """Largest rank of its modules; 0 if it has none."""
        return max((factors.rank for factors in self.modules.values()), default=0)


@dataclass
class _Module:
    """The tensors of one adapted module, by role."""

    name: str
    tensors: dict[str, str] = field(default_factory=dict)


class _Fitting:
    """Fits an adapter's tensors to its base's."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._file = adapter.file
        self._config = adapter.config
        self._entries = adapter.base.entries
        self._found: dict[str, Change] = {}

    def changes(self) -> dict[str, Change]:
        """By name of the base's tensor, in the order of the adapter's file."""
        modules, whole = self._parts()
        for name, tensor in whole.items():
            self._replace(name, tensor)
        for module in modules.values():
            self._add(module)
        return self._found

    def _parts(self) -> tuple[dict[str, _Module], dict[str, str]]:
        """The adapted modules, and what replaces a tensor whole (``modules_to_save``, biases), by name."""
        modules: dict[str, _Module] = {}
        whole: dict[str, str] = {}
        for tensor in self._file.entries:
            name = tensor.removeprefix(_PREFIX)
            for role, pattern in _ROLES:
                if match := pattern.match(name):
                    tensors = modules.setdefault(match[1], _Module(match[1])).tensors
                    if role in tensors:
                        self._fail(tensor, f"is there twice, as {tensors[role]!r}, too", "keep one of the two")
                    tensors[role] = tensor
                    break
            else:
                if "lora_" in name:
                    self._fail(tensor, "is of an unknown kind", "merge the adapter into its base with PEFT instead")
                whole[name.replace(".base_layer.", ".")] = tensor
        return modules, whole

    def _replace(self, name: str, tensor: str) -> None:
        home = self._home(name, tensor)
        mine, theirs = self._file.entries[tensor], self._entries[home]
        if mine.shape[1:] != theirs.shape[1:] or len(mine.shape) != len(theirs.shape) or not mine.floating:
            self._misfit(tensor, home)
        if home in self._found:
            self._fail(tensor, f"replaces {home!r}, which another one replaces, too", "keep one of the two")
        self._found[home] = Change(whole=tensor)

    def _add(self, module: _Module) -> None:
        tensors = module.tensors
        embedding = "A embedding" in tensors or "B embedding" in tensors
        first, second = ("A embedding", "B embedding") if embedding else ("A", "B")
        for role in (first, second):
            if role not in tensors:
                there = next(iter(tensors.values()))
                self._fail(there, f"has no partner: module {module.name!r} lacks {role}", "save the adapter again")
        home = self._home(f"{module.name}.weight", tensors[first])
        change = self._found.setdefault(home, Change())
        if change.factors is not None:
            self._fail(tensors[first], f"adapts {home!r}, which another one adapts, too", "keep one of the two")
        change.factors = self._factors(module.name, tensors[first], tensors[second], home, embedding)
        self._magnitude(module, change, home)
        if "bias" in tensors:
            self._bias(module, change.factors)

    def _factors(self, module: str, a: str, b: str, home: str, embedding: bool) -> LowRank:
        change, entries = self._found[home], self._file.entries
        shape = entries[change.whole].shape if change.whole else self._entries[home].shape
        rows, columns = (shape[0], math.prod(shape[1:])) if shape else (0, 0)
        rank, inputs = (entries[a].shape[0], math.prod(entries[a].shape[1:])) if entries[a].shape else (0, 0)
        outputs = entries[b].shape[0] if entries[b].shape else 0
        wanted = self._config.rank_of(module)
        if rank != wanted:
            self._fail(a, f"has rank {rank} instead of {wanted}, as {CONFIG} says", "take both files from one place")
        flat = entries[a].floating and entries[b].floating and entries[b].size == outputs * rank
        if not flat or not {entries[b].shape[1:2], entries[b].shape[-1:]} & {(rank,)}:
            self._misfit(b, home)
        scale = self._config.scale_of(module)
        swapped = (inputs, outputs) == (rows, columns) and len(shape) == 2
        prefers = self._config.fan_in_fan_out or embedding
        if (outputs, inputs) == (rows, columns) and not (swapped and prefers) and not embedding:
            return LowRank(self._file, b, a, (rows, columns), rank, scale, "linear")
        if not swapped:
            self._misfit(a, home)
        return LowRank(self._file, a, b, (rows, columns), rank, scale, "embedding" if embedding else "transposed")

    def _magnitude(self, module: _Module, change: Change, home: str) -> None:
        """DoRA's norms, where the settings say so."""
        tensor = module.tensors.get("magnitude")
        if (tensor is not None) != self._config.dora:
            there = tensor or next(iter(module.tensors.values()))
            problem = "has no magnitude beside it" if tensor is None else "is a magnitude"
            said = str(self._config.dora).lower()
            self._fail(there, f"{problem}, but {CONFIG} says use_dora: {said}", "take both files from one place")
        if tensor is not None and change.factors is not None:
            rows, columns = change.factors.shape
            entry = self._file.entries[tensor]
            if entry.size != (rows if change.factors.form == "linear" else columns) or not entry.floating:
                self._misfit(tensor, home)
            change.magnitude = tensor

    def _bias(self, module: _Module, factors: LowRank) -> None:
        tensor = module.tensors["bias"]
        home = self._home(f"{module.name}.bias", tensor)
        change = self._found.setdefault(home, Change())
        if self._file.entries[tensor].size != self._entries[home].size or not self._file.entries[tensor].floating:
            self._misfit(tensor, home)
        change.bias, change.bias_scale = tensor, factors.scale

    def _home(self, name: str, tensor: str) -> str:
        """The base's tensor of that name, or the only one whose name ends like it (heads name their bodies apart)."""
        if name in self._entries:
            return name
        longer = self._by_ending.get(name, [])
        shorter = [end for end in _endings(name) if end in self._entries][:1]
        found = longer or shorter
        if len(found) != 1:
            near = found or get_close_matches(name, self._entries, 2)
            hint = f" (it has {' and '.join(near[:2])})" if near else ""
            self._fail(
                tensor,
                f"belongs to {name!r}, which the base {self._adapter.base.path} does not have{hint}",
                "give the base that the adapter was trained on, as pool.base or as BASE+ADAPTER",
            )
        return found[0]

    @cached_property
    def _by_ending(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._entries:
            for end in _endings(name):
                found.setdefault(end, []).append(name)
        return found

    def _misfit(self, tensor: str, home: str) -> NoReturn:
        mine, theirs = self._file.entries[tensor], self._entries[home]
        self._fail(
            tensor,
            f"({mine.dtype} {list(mine.shape)}) does not fit {home!r} {list(theirs.shape)} of the base "
            f"{self._adapter.base.path}",
            "give the base that the adapter was trained on, as pool.base or as BASE+ADAPTER",
        )

    def _fail(self, tensor: str, problem: str, cure: str) -> NoReturn:
        raise PoolError(f"{self._file.path}: tensor {tensor!r} {problem}; {cure}")


def _endings(name: str) -> Iterator[str]:
    """The name without its first part, without its first two, ..., with at least two parts left."""
    while name.count(".") > 1:
        name = name.partition(".")[2]
        yield name


def _turned(values: Floats, columns: int) -> Floats:
    """The transpose of a matrix of so many rows, given flat."""
    return np.ascontiguousarray(values.reshape(-1, len(values) // columns if columns else 0).T)
