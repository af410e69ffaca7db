"""What a LoRA adapter's ``adapter_config.json`` says, checked before any tensor is touched.

Format: the PEFT library's ``LoraConfig`` (https://huggingface.co/docs/peft/package_reference/lora). What changes the
meaning of the tensors in a way that is not computed here is refused by name.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from evomerge.errors import PoolError
from evomerge.merge.source import read_json

N = TypeVar("N", int, float)
Patterns = tuple[tuple[re.Pattern[str], N], ...]
"""Values by what a module's name must match."""

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_BASE_AS_IT_IS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of ``init_lora_weights`` that leave the base's weights alone. PiSSA, OLoRA, CorDA, LoftQ, ... do not."""

_REFUSED = {
    "alora_invocation_tokens": "it acts on some tokens only, so there is no merged model",
    "arrow_config": "it routes between adapters, so there is no merged model",
    "kasa_config": "it truncates its base",
    "layer_replication": "it repeats layers of its base; stack them with pool.layers instead",
    "target_parameters": "it adapts fused tensors of experts",
    "trainable_token_indices": "it trains rows of the embeddings by themselves",
    "use_bdlora": "its factors are block-diagonal",
    "use_qalora": "its factors act on pooled inputs",
}
_CURE = "merge it into its base with the PEFT library (merge_and_unload) and save that"


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA's settings: rank and alpha, for all modules or by pattern, and how the scale follows from them.

    ``raw`` is the whole file; ``base`` the name of the model that it was trained on, empty where it is not told.
    """

    rank: int
    alpha: float
    rank_pattern: Patterns[int]
    alpha_pattern: Patterns[float]
    rslora: bool
    fan_in_fan_out: bool
    dora: bool
    base: str
    raw: Mapping[str, Any]

    def rank_of(self, module: str) -> int:
        """The rank that the settings give a module."""
        return _by_pattern(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` of a rank-stabilised LoRA (arXiv:2312.03732)."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def is_adapter(path: Path) -> bool:
    """Whether a path is a PEFT adapter's folder, or the weights in one."""
    if path.is_dir():
        return (path / CONFIG).is_file() or (path / WEIGHTS).is_file()
    return path.name == WEIGHTS


def read_config(folder: Path) -> AdapterConfig:
    """The adapter's settings.

    Raises:
        PoolError: none, damaged, of another kind than LoRA, or a variant that cannot be computed; says what to do.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise PoolError(f"{folder} has {WEIGHTS} but no {CONFIG}, which gives its scale; copy that file there, too")
    return _Reader(path, read_json(path)).config()


class _Reader:
    """One file's values, each checked where it is read."""

    def __init__(self, path: Path, raw: dict[str, Any]) -> None:
        self._path = path
        self._raw = raw

    def config(self) -> AdapterConfig:
        self._refuse_others()
        return AdapterConfig(
            rank=self._rank("r", self._raw.get("r", 8)),
            alpha=self._number("lora_alpha", self._raw.get("lora_alpha", 8)),
            rank_pattern=self._patterns("rank_pattern", self._rank),
            alpha_pattern=self._patterns("alpha_pattern", self._number),
            rslora=self._flag("use_rslora"),
            fan_in_fan_out=self._flag("fan_in_fan_out"),
            dora=self._flag("use_dora"),
            base=self._text("base_model_name_or_path"),
            raw=self._raw,
        )

    def _refuse_others(self) -> None:
        kind = self._raw.get("peft_type")
        if kind != "LORA":
            raise PoolError(f"{self._path}: peft_type is {kind!r:.40}, and only LORA can be merged; {_CURE}")
        for key, why in _REFUSED.items():
            if self._raw.get(key):
                raise PoolError(f"{self._path}: {key} is not supported ({why}); {_CURE}")
        start = self._raw.get("init_lora_weights")
        if not any(start is known or (isinstance(start, str) and start == known) for known in _BASE_AS_IT_IS):
            raise PoolError(
                f"{self._path}: init_lora_weights is {start!r:.40}, which changes the base's own weights; save the "
                "adapter again with path_initial_model_for_weight_conversion, which makes it a plain LoRA"
            )

    def _fail(self, key: str, value: Any, wanted: str) -> NoReturn:
        raise PoolError(f"{self._path}: {key} is {value!r:.60} instead of {wanted}; download the adapter again")

    def _rank(self, key: str, value: Any) -> int:
        if type(value) is not int or not 0 < value < 2**31:
            self._fail(key, value, "a whole number > 0")
        return value

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
            self._fail(key, value, "a finite number")
        return float(value)

    def _flag(self, key: str) -> bool:
        value = self._raw.get(key)
        if value is not None and not isinstance(value, bool):
            self._fail(key, value, "true or false")
        return bool(value)

    def _text(self, key: str) -> str:
        value = self._raw.get(key)
        if value is not None and not isinstance(value, str):
            self._fail(key, value, "text")
        return value or ""

    def _patterns(self, key: str, checked: Callable[[str, Any], N]) -> Patterns[N]:
        value = self._raw.get(key)
        if value is not None and not isinstance(value, dict):
            self._fail(key, value, "a mapping of module names")
        return tuple(
            (self._pattern(key, name), checked(f"{key}[{name!r:.60}]", item)) for name, item in (value or {}).items()
        )

    def _pattern(self, key: str, name: str) -> re.Pattern[str]:
        """What fits the end of a module's dotted name, as PEFT matches it."""
        try:
            with warnings.catch_warnings(action="ignore"):  # of a doubtful pattern: PEFT takes it, too
                return re.compile(rf"(.*\.)?({name})$")
        except (re.error, OverflowError, RecursionError) as error:
            self._fail(f"a key of {key}", name, f"a regular expression ({error})")


def _by_pattern(patterns: Patterns[N], module: str, default: N) -> N:
    return next((value for pattern, value in patterns if pattern.match(module)), default)
