"""The model pool: the checkpoints to merge, opened lazily and seen through one layout."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path

import numpy as np

from evomerge.errors import PoolError, RecipeError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.companions import folder_of
from evomerge.merge.folders import cache_folder
from evomerge.merge.importance import importance
from evomerge.merge.layout import Layout, Slot, lay_out, natural
from evomerge.merge.opener import BASE, local, open_sources
from evomerge.merge.parallel import cores, run
from evomerge.merge.poolcache import PoolCache
from evomerge.merge.report import Differences, PoolReport, compare, describe
from evomerge.merge.source import CHUNK, Source
from evomerge.merge.templates import chosen
from evomerge.merge.tensorfile import Floats, chunks
from evomerge.merge.views.adapted import Adapted
from evomerge.merge.views.adapter import Adapter
from evomerge.settings import PoolSettings
from evomerge.strategy import Group

__all__ = ["BASE", "ModelPool"]

_offset = attrgetter("offset")


class ModelPool:
    """Members and base of a study. Opening reads headers only; tensors stay in their files until they are asked for.

    ``members`` may be a single folder that only gives the architecture (searches from scratch). ``base`` is the
    base's name among the sources, or ``None``; ``sources`` are the members and, where it is none of them, the base.
    ``settings`` open the same pool elsewhere: references to the hub are pinned to commits in them.
    ``reference`` (base, else first member) gives the layout, what is not merged, and config and tokenizer files.
    """

    def __init__(
        self, checkpoints: Mapping[str, Source], base: str | None, settings: PoolSettings, root: Path = Path()
    ) -> None:
        self.checkpoints = dict(checkpoints)
        self.sources = tuple(checkpoints)
        self.members = tuple(settings.members)
        self.base = base
        self.root = root
        self.settings = settings
        self.statistics = settings.statistics
        self._attached: dict[str, Source] = {}
        self.reference = base or self.members[0]
        self.layout: Layout = lay_out(
            self.checkpoints[self.reference].entries,
            sorted({name for checkpoint in self.checkpoints.values() for name in checkpoint.entries}, key=natural),
            settings,
            lambda names: importance(names, self.checkpoints, base, PoolCache(cache_folder() / "pools")),
        )

    @classmethod
    def open(cls, settings: PoolSettings, root: Path) -> ModelPool:
        """Open the checkpoints that the settings name, relative to ``root``.

        Raises:
            PoolError: no member, a checkpoint that cannot be read, or patterns that do not fit the tensors.
        """
        opened = open_sources(settings, root)
        return cls(opened.sources, opened.base, opened.settings, root)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The parameter groups, as strategies see them."""
        return self.layout.groups

    @property
    def size(self) -> int:
        """Number of merged parameters: the length of the flat vector."""
        return self.layout.size

    @property
    def copied(self) -> tuple[str, ...]:
        """Names of the tensors that are taken from the reference: excluded, or not floating."""
        return self.layout.copied

    @cached_property
    def reference_folder(self) -> Path:
        """Where config and tokenizer files of the pool's merges are: the reference's, or made for it.

        Raises:
            PoolError: ``pool.chat_template`` is no template, or files cannot be read or written.
        """
        template = self.settings.chat_template
        if template is not None:
            template = chosen(template, (source.tokenizer_folder for source in self.checkpoints.values()))
        return folder_of(self.checkpoints[self.reference], cache_folder() / "folders", template)

    @cached_property
    def slots(self) -> Mapping[str, tuple[Slot, ...]]:
        """The merged tensors of each group, in the order of its coordinates."""
        return {
            group.name: tuple(slot for slot in self.layout.slots if slot.group == group.name) for group in self.groups
        }

    def slot_at(self, group: str, coordinate: int) -> Slot:
        """The tensor that a coordinate of a group lies in."""
        slots = self.slots[group]
        return slots[bisect_right(slots, coordinate, key=_offset) - 1]

    def adapter(self, source: str) -> Adapter:
        """The adapter that a source is, with its factors.

        Raises:
            RecipeError: it is none, or not over the pool's base.
        """
        found = self.checkpoints[source]
        if not isinstance(found, Adapted) or self.base is None or found.base is not self.checkpoints[self.base]:
            raise RecipeError(f"{source} is no adapter over pool.base; name a PEFT folder as the member")
        return found.adapter

    def number(self, source: str, kind: str) -> float:
        """A number that ``pool.statistics`` gives for a source, such as its ``loss``.

        Raises:
            RecipeError: it gives none.
        """
        value = self.statistics.get(source, {}).get(kind)
        if not isinstance(value, int | float):
            raise RecipeError(f"{source} has no {kind}; give the number as pool.statistics.{source}.{kind}")
        return float(value)

    def attached(self, source: str, kind: str) -> Source:
        """The file that ``pool.statistics`` gives for a source, such as its ``fisher`` information.

        Raises:
            RecipeError: it gives none.
            PoolError: it cannot be read.
        """
        found = self._file(source, kind)
        if found is None:
            raise RecipeError(f"{source} has no {kind}; give the file as pool.statistics.{source}.{kind}")
        return found

    def _file(self, source: str, kind: str) -> Source | None:
        value = self.statistics.get(source, {}).get(kind)
        if not isinstance(value, str):
            return None
        if value not in self._attached:
            try:
                self._attached[value] = Checkpoint(local(self.root, value))
            except PoolError as error:
                raise PoolError(f"pool.statistics.{source}.{kind}: {error}") from error
        return self._attached[value]

    def span(self, source: str, group: str, start: int, stop: int) -> Floats:
        """Coordinates ``start:stop`` of one source's group, as a new float32 array."""
        out = np.empty(stop - start, dtype=np.float32)
        slots = self.slots[group]
        for slot in slots[bisect_right(slots, start, key=_offset) - 1 :]:
            first, last = max(start, slot.offset), min(stop, slot.offset + slot.size)
            if slot.offset >= stop:
                break
            values = self.checkpoints[source].floats(slot.name, first - slot.offset, last - slot.offset)
            out[first - start : last - start] = values
        return out

    def vector(self, source: str) -> Floats:
        """The whole flat float32 vector of one source.

        Raises:
            PoolError: NaN or infinity in it.
        """
        out = np.empty(self.size, dtype=np.float32)
        checkpoint = self.checkpoints[source]
        for slot in self.layout.slots:
            at = self.layout.starts[slot.group] + slot.offset
            for start, stop in chunks(slot.size, CHUNK):
                out[at + start : at + stop] = checkpoint.floats(slot.name, start, stop)
        if not np.isfinite(out).all():
            self.check_finite()
            raise PoolError(f"{source}: values too large for float32; rescale the model or drop it from the pool")
        return out

    def check(self) -> None:
        """Refuse a pool whose sources do not fit together, or whose statistics are not there. Reads no tensor.

        Raises:
            PoolError: naming everything that differs.
        """
        self._check_statistics()
        if self._differences.errors:
            listed = "\n  ".join(self._differences.errors)
            raise PoolError(
                f"the pool's models do not fit together (compared with {self.reference}):\n  {listed}\n"
                "remove the models that differ, or list tensors that need not be merged in pool.exclude"
            )

    def _check_statistics(self) -> None:
        for source, kinds in self.statistics.items():
            if source not in self.sources:
                raise PoolError(
                    f"pool.statistics names {source!r}, but the pool has {', '.join(self.sources)}; correct the name"
                )
            for kind in kinds:
                self._file(source, kind)

    def check_finite(self) -> None:
        """Refuse NaN and infinite weights. Reads every merged tensor once, chunk by chunk.

        Raises:
            PoolError: naming the first such member, tensor and index.
        """
        for source, checkpoint in self.checkpoints.items():
            for slot in self.layout.slots:
                found = checkpoint.first_not_finite(slot.name)
                if found is not None:
                    at = ", ".join(str(int(i)) for i in np.unravel_index(found[0], slot.shape))
                    raise PoolError(
                        f"{source}: tensor {slot.name!r} is {found[1]} at index [{at}] ({checkpoint.path}); "
                        "the training run probably diverged, drop the model or take an earlier checkpoint"
                    )

    def report(self) -> PoolReport:
        """What the pool holds and how its models differ, for people to read."""
        return describe(self.checkpoints, self.reference, self.base, self.layout, self._differences)

    def digests(self) -> dict[str, str]:
        """Content digest of every source. Reads everything once, by all processors."""
        leaves = dict.fromkeys(leaf for source in self.checkpoints.values() for leaf in source.leaves)
        tensors = (partial(leaf.fingerprint, name) for leaf in leaves for name in leaf.entries)
        with closing(run(tensors, cores())) as found:
            deque(found, maxlen=0)
        return {source: checkpoint.digest() for source, checkpoint in self.checkpoints.items()}

    def statistics_digests(self) -> dict[str, str]:
        """Content digest of every file in ``pool.statistics``, by its key in the study file. Reads everything once."""
        keys = [(source, kind) for source, kinds in self.statistics.items() for kind in kinds]
        found = {f"pool.statistics.{source}.{kind}": self._file(source, kind) for source, kind in keys}
        return {key: file.digest() for key, file in found.items() if file is not None}

    @cached_property
    def identity(self) -> str:
        """A cheap key of files and layout for caches on this machine. Reads no tensor."""
        total = hashlib.blake2b(repr(self.layout).encode(), digest_size=16)
        for source, checkpoint in self.checkpoints.items():
            total.update(f"{source}={checkpoint.identity()}".encode())
        return total.hexdigest()

    @cached_property
    def meaning(self) -> str:
        """A cheap key, like `identity`, of all that what a recipe builds depends on: `statistics`, too."""
        total = hashlib.blake2b(self.identity.encode(), digest_size=16)
        for source, kinds in sorted(self.statistics.items()):
            for kind, value in sorted(kinds.items()):
                file = self._file(source, kind)
                total.update(f"{source}.{kind}={value if file is None else file.identity()}\n".encode())
        return total.hexdigest()

    @cached_property
    def _differences(self) -> Differences:
        return compare(self.checkpoints, self.reference, self.layout)
