"""From what pool settings call a model to its `Source`: a folder, a file, an adapter over a base."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge.errors import PoolError
from evomerge.merge import hub
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.source import Source
from evomerge.merge.ternary import is_ternary
from evomerge.merge.views.adapted import Adapted
from evomerge.merge.views.adapter import Adapter
from evomerge.merge.views.alignment import with_padding, with_tokens
from evomerge.merge.views.layers import Stacked
from evomerge.merge.views.peft import CONFIG, is_adapter
from evomerge.merge.views.quantised import whole_precision
from evomerge.merge.views.ternary import TernaryView
from evomerge.merge.views.tied import with_heads
from evomerge.settings import PoolSettings

BASE = "base"
"""The base's name as a source (``"pool:base"``), unless it is one of the members."""

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


def local(root: Path, text: str) -> Path:
    """A path as users write it, relative to ``root``.

    Raises:
        PoolError: it begins with the home of a user who is not there.
    """
    try:
        return root / Path(text).expanduser()
    except RuntimeError as error:
        raise PoolError(f"there is no home folder for {text!r}; write the whole path") from error


class Opener:
    """Opens the models of one pool, each checkpoint once. Relative paths begin at ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: dict[Path, Source] = {}
        self._fetched: dict[str, Path] = {}

    def find(self, text: str) -> Reference:
        """What ``FOLDER``, ``FILE.safetensors``, ``hf:ORG/NAME@REVISION`` or ``MODEL+ADAPTER`` stands for.

        Raises:
            PoolError: it is on the hub and cannot be had.
        """
        parts = self._parts(text)
        return Reference(self._place(parts[0]), self._place(parts[1]) if len(parts) > 1 else None)

    def pinned(self, text: str) -> str:
        """The same, with the commits that references to the hub stood for when they were found."""
        parts = self._parts(text)
        return "+".join(hub.pinned(part, self._fetched[part]) if part in self._fetched else part for part in parts)

    def tokenizer(self, text: str) -> Path:
        """The folder of a tokenizer.

        Raises:
            PoolError: it is on the hub and cannot be had.
        """
        return self._fetch(text, hub.tokenizer) if text.startswith(hub.PREFIX) else self._local(text)

    def _parts(self, text: str) -> tuple[str, ...]:
        """Model and adapter; a path with a plus in it is one model."""
        model, plus, adapter = text.rpartition("+")
        if not (plus and model and adapter) or (not text.startswith(hub.PREFIX) and self._local(text).exists()):
            return (text,)
        return model, adapter

    def _place(self, text: str) -> Path:
        return self._fetch(text, hub.model) if text.startswith(hub.PREFIX) else self._local(text)

    def _local(self, text: str) -> Path:
        return local(self._root, text)

    def _fetch(self, text: str, how: Callable[[str], Path]) -> Path:
        if text not in self._fetched:
            self._fetched[text] = how(text)
        return self._fetched[text]

    def open(self, reference: Reference, base: Source | None) -> Source:
        """The model. An adapter without a model of its own lies over ``base``.

        Raises:
            PoolError: missing, damaged, of no known format, or an adapter without its base.
        """
        if reference.adapter is not None:
            return self._adapted(reference.adapter, self.open(Reference(reference.model), base))
        if not (is_adapter(reference.model) or is_ternary(reference.model)):
            return self._checkpoint(reference.model)
        if base is None:
            raise PoolError(
                f"{reference.model} holds an adapter; name what it was trained on as pool.base, or write BASE+ADAPTER"
            )
        return self._adapted(reference.model, base)

    def _adapted(self, path: Path, base: Source) -> Source:
        if is_ternary(path):
            return TernaryView(path, base)
        return Adapted(Adapter(path if path.is_dir() else path.parent, base))

    def _checkpoint(self, path: Path) -> Source:
        key = path.resolve()
        if key not in self._opened:
            checkpoint = Checkpoint(path)
            self._refuse_factors(checkpoint)
            self._opened[key] = whole_precision(checkpoint)
        return self._opened[key]

    def _refuse_factors(self, checkpoint: Checkpoint) -> None:
        for name in checkpoint.entries:
            if _FACTORS.match(name):
                raise PoolError(
                    f"{checkpoint.path} holds a LoRA's factors ({name!r}) but no {CONFIG} tells their scale; convert "
                    "it to a PEFT folder, or merge it into its base with the program that trained it"
                )


@dataclass(frozen=True)
class Opened:
    """A pool's sources by name, what the base is called among them, and the settings with hub references pinned."""

    sources: dict[str, Source]
    base: str | None
    settings: PoolSettings


def open_sources(settings: PoolSettings, root: Path) -> Opened:
    """The members of a pool and, where it is none of them, the base.

    Raises:
        PoolError: no member, one that cannot be opened, or settings for one that is not there.
    """
    if not settings.members:
        raise PoolError("pool.members is empty; name at least one checkpoint folder")
    opener = Opener(root)
    found = {name: _find(opener, name, text) for name, text in settings.members.items()}
    base, origin = _base(settings, opener, found), None
    if base is not None:
        origin = _open(opener, base, found[base], None)
    sources = {
        name: origin if origin is not None and name == base else _open(opener, name, reference, origin)
        for name, reference in found.items()
    }
    for name, ranges in settings.layers.items():
        if name not in sources:
            raise PoolError(f"pool.layers names {name!r}, but the pool has {', '.join(sources)}; correct the name")
        sources[name] = Stacked(sources[name], ranges)
    sources = with_heads(sources, base or next(iter(sources)))
    return Opened(_with_one_vocabulary(sources, base, settings, opener), base, _pinned(settings, opener))


def _pinned(settings: PoolSettings, opener: Opener) -> PoolSettings:
    return replace(
        settings,
        members={name: opener.pinned(text) for name, text in settings.members.items()},
        base=settings.base and opener.pinned(settings.base),
        vocabulary=opener.pinned(settings.vocabulary),
    )


def _with_one_vocabulary(
    sources: dict[str, Source], base: str | None, settings: PoolSettings, opener: Opener
) -> dict[str, Source]:
    reference, chosen = base or next(iter(sources)), settings.vocabulary
    if chosen == "same":
        if settings.tokens:
            raise PoolError(
                "pool.tokens says which rows tokens have where the pool's models get one vocabulary; set "
                "pool.vocabulary to union, to base or to one of the members"
            )
        return with_padding(sources, reference, settings.pad_vocabulary)
    if chosen == "union":
        return with_tokens(sources, reference, base, "union", settings)
    if chosen == "base" or chosen in sources:
        folder = sources[reference if chosen == "base" else chosen].tokenizer_folder
    else:
        folder = opener.tokenizer(chosen)
        if not folder.is_dir():
            raise PoolError(
                f"pool.vocabulary is {chosen!r}, which is no folder; give same, union, base, a folder with a "
                f"tokenizer, or one of {', '.join(sources)}"
            )
    return with_tokens(sources, reference, base, folder, settings)


def _base(settings: PoolSettings, opener: Opener, found: dict[str, Reference]) -> str | None:
    """What the base is called: a member that is the same model, or else `BASE`, which is then added."""
    if settings.base is None:
        return None
    home = _find(opener, BASE, settings.base)
    own = settings.layers.get(BASE)
    for name, reference in found.items():
        if reference.resolved == home.resolved and own in (None, settings.layers.get(name)):
            return name
    if BASE in found:
        raise PoolError(f"a member is called {BASE!r} but is not pool.base; give the member another name")
    found[BASE] = home
    return BASE


def _find(opener: Opener, name: str, text: str) -> Reference:
    try:
        return opener.find(text)
    except PoolError as error:
        raise PoolError(f"pool member {name}: {error}") from error


def _open(opener: Opener, name: str, reference: Reference, base: Source | None) -> Source:
    try:
        return opener.open(reference, base)
    except PoolError as error:
        raise PoolError(f"pool member {name}: {error}") from error
