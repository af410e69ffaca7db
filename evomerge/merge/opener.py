"""From what pool settings call a model to its `Source`: a folder, a file, an adapter over a base."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import PoolError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.source import Source
from evomerge.merge.views.adapted import Adapted
from evomerge.merge.views.adapter import Adapter
from evomerge.merge.views.peft import CONFIG, is_adapter

_FACTORS = re.compile(r".*(\.lora_[AB]\.|lora_(up|down)\.|:(up|down)$)")
"""Names of tensors in LoRA files without settings, such as those of image models."""


@dataclass(frozen=True)
class Reference:
    """Where a model is: a checkpoint or an adapter, and perhaps an adapter on top of it."""

    model: Path
    adapter: Path | None = None

    @property
    def resolved(self) -> tuple[Path, Path | None]:
        """Equal where the files are."""
        return self.model.resolve(), self.adapter and self.adapter.resolve()


class Opener:
    """Opens the models of one pool, each checkpoint once. Relative paths begin at ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: dict[Path, Checkpoint] = {}

    def find(self, text: str) -> Reference:
        """What ``FOLDER``, ``FILE.safetensors`` or ``MODEL+ADAPTER`` stands for."""
        whole = self._place(text)
        model, plus, adapter = text.rpartition("+")
        if not (plus and model and adapter) or whole.exists():
            return Reference(whole)
        return Reference(self._place(model), self._place(adapter))

    def open(self, reference: Reference, base: Source | None) -> Source:
        """The model. An adapter without a model of its own lies over ``base``.

        Raises:
            PoolError: missing, damaged, of no known format, or an adapter without its base.
        """
        if reference.adapter is not None:
            return self._adapted(reference.adapter, self.open(Reference(reference.model), base))
        if not is_adapter(reference.model):
            return self._checkpoint(reference.model)
        if base is None:
            raise PoolError(
                f"{reference.model} holds an adapter; name what it was trained on as pool.base, or write BASE+ADAPTER"
            )
        return self._adapted(reference.model, base)

    def _place(self, text: str) -> Path:
        return self._root / Path(text).expanduser()

    def _adapted(self, path: Path, base: Source) -> Adapted:
        return Adapted(Adapter(path if path.is_dir() else path.parent, base))

    def _checkpoint(self, path: Path) -> Source:
        key = path.resolve()
        if key not in self._opened:
            self._opened[key] = Checkpoint(path)
            self._refuse_factors(self._opened[key])
        return self._opened[key]

    def _refuse_factors(self, checkpoint: Checkpoint) -> None:
        for name in checkpoint.entries:
            if _FACTORS.match(name):
                raise PoolError(
                    f"{checkpoint.path} holds a LoRA's factors ({name!r}) but no {CONFIG} tells their scale; convert "
                    "it to a PEFT folder, or merge it into its base with the program that trained it"
                )
