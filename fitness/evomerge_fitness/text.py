"""Classification of texts by a transformers sequence classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from evomerge.errors import ConfigError
from evomerge.fitness import Splits
from evomerge_fitness.classification import SlopeLoss
from evomerge_fitness.hf import Prepared, TransformersClassification
from evomerge_fitness.labels import class_of
from evomerge_fitness.textfile import Example, read_examples

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "spm.model")
_NO_LIMIT = 1_000_000  # transformers says 10^30 for "no length known"


@dataclass(frozen=True)
class TextSettings:
    """Which texts, and how they are fed.

    ``data`` is a JSON-lines (``.jsonl``) or CSV (``.csv``, with a header) file, named from the study file's folder on;
    ``text_field`` and ``label_field`` are its columns; a label is a class number or a name in the model's ``label2id``.
    ``truncate`` cuts texts longer than the model's context, which are an error otherwise. ``batch`` is the number
    of texts per forward pass. Without ``losses`` only right and wrong are reported. A strategy that follows
    slopes of a loss gets those of ``slope_loss``: the labelled cross-entropy, or the entropy of the predictions, which
    needs no labels.
    """

    data: str
    text_field: str = "text"
    label_field: str = "label"
    truncate: bool = False
    batch: Annotated[int, Gt(0)] = 32
    losses: bool = True
    slope_loss: SlopeLoss = "cross_entropy"


class TextClassification(TransformersClassification):
    """Accuracy and cross-entropy of a sequence classifier, with the tokenizer of the pool's reference folder."""

    Settings = TextSettings
    head = "text"

    def __init__(self, settings: TextSettings, splits: Splits) -> None:
        super().__init__(splits, settings.losses, settings.slope_loss)
        self.settings = settings

    @property
    def source(self) -> str:
        """The data's path."""
        return self.settings.data

    def labels(self) -> NDArray[np.int64]:
        """The class number of every text."""
        names = self.reference.label2id
        return np.array([class_of(e.label, names, f"{self.source}:{e.line}") for e in self._examples], dtype=np.int64)

    def fingerprint(self) -> Mapping[str, str]:
        """Digest of the data file."""
        content = (self.root / self.settings.data).read_bytes() if self._examples else b""
        return {self.settings.data: hashlib.blake2b(content, digest_size=16).hexdigest()}

    def prepare(self, indices: NDArray[np.int64]) -> Prepared:
        """Tokenised once; texts of like length share a batch, so that little is padded."""
        tokenizer = self._tokenizer()
        examples = [self._examples[index] for index in indices]
        ids = self._encode(tokenizer, examples)
        order = np.argsort([len(each) for each in ids], kind="stable")
        size = self.settings.batch
        chunks = [[ids[i] for i in order[at : at + size]] for at in range(0, len(order), size)]
        if tokenizer.pad_token is None and any(len(chunk[0]) < len(chunk[-1]) for chunk in chunks):
            raise ConfigError(f"the tokenizer of {self.reference.folder} has no padding token; set batch: 1")
        batches = tuple(_batch(chunk, tokenizer) for chunk in chunks)
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        return Prepared(batches, places)

    @cached_property
    def _examples(self) -> tuple[Example, ...]:
        settings = self.settings
        return read_examples(self.root / settings.data, settings.text_field, settings.label_field)

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        folder = self.reference.folder
        # without any of these transformers would make up an empty vocabulary for some architectures
        if not any((folder / name).exists() for name in _TOKENIZER_FILES):
            raise ConfigError(f"{folder} has no tokenizer; copy its tokenizer files (tokenizer.json, ...) there")
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (ValueError, OSError, KeyError) as error:
            raise ConfigError(f"cannot read the tokenizer of {folder}: {error}") from error

    def _encode(self, tokenizer: Any, examples: list[Example]) -> list[list[int]]:
        context = self._context(tokenizer)
        truncation = {"truncation": True, "max_length": context} if self.settings.truncate and context else {}
        encoded = tokenizer([each.text for each in examples], verbose=False, **truncation)["input_ids"]
        ids: list[list[int]] = [list(each) for each in encoded]
        vocabulary = self.reference.vocabulary
        for tokens, example in zip(ids, examples, strict=True):
            where = f"{self.source}:{example.line}"
            if not tokens:
                raise ConfigError(f"{where}: the text has no tokens; remove the line")
            if context is not None and len(tokens) > context:
                raise ConfigError(
                    f"{where}: the text has {len(tokens)} tokens, but the model's context is {context}; shorten it or"
                    " set truncate: true"
                )
            if vocabulary is not None and max(tokens) >= vocabulary:
                raise ConfigError(
                    f"{where}: token {max(tokens)} is beyond the model's vocabulary of {vocabulary}; the tokenizer of"
                    f" {self.reference.folder} belongs to another model"
                )
        return ids

    def _context(self, tokenizer: Any) -> int | None:
        limits = [
            limit for limit in (tokenizer.model_max_length, self.reference.context) if limit and limit < _NO_LIMIT
        ]
        return min(limits, default=None)


def _batch(ids: list[list[int]], tokenizer: Any) -> dict[str, Any]:
    import torch

    if tokenizer.pad_token is not None:
        return dict(tokenizer.pad({"input_ids": ids}, return_tensors="pt"))
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), len(ids[0]), dtype=torch.int64)}
