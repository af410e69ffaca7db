"""Candidates that a pool server builds and scores (``evomerge serve-pool``): no weights and no torch on this side."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from evomerge.blackbox import AncestorsWanted, BlackBox, Family, RemotePool
from evomerge.candidate import Score, Split, check_score
from evomerge.errors import CodecError, ConfigError, EvaluationError, ServiceError
from evomerge.fitness import Splits
from evomerge.http import Client, ClientSettings, Reply, Secret, UnusableError
from evomerge.strategy import Objective
from evomerge.wire import PROTOCOL, Answer, Offer, Question, Refusal, Refused, dump, load

FIRST_PATIENCE = 10.0
"""Seconds for the first answer: a server that is not there at the start is an error, not a pause."""


@dataclass(frozen=True)
class PoolServerSettings:
    """Where the server is and how it is asked.

    Attributes:
        url: the server's address, such as ``https://pool.example.org``; plain http only without a token, or on this
            machine.
        token_env: the environment variable that holds the token.
        token_file: the file that holds it.
        members: which of the server's members take part, in this order; default: all.
        concurrency: requests in flight at most; with ``executor: {kind: threads, workers: N}`` N candidates are out.
        timeout: seconds that one attempt may take.
        patience: seconds until a request that is repeated after errors is given up; the study then stops, and resumes.
        max_requests: requests in one run, repetitions included; default: no limit.
        max_items: items that are asked for in one run; default: no limit.
    """

    url: str
    token_env: str | None = None
    token_file: str | None = None
    members: tuple[str, ...] = ()
    concurrency: Annotated[int, Gt(0)] = 64
    timeout: Annotated[float, Gt(0)] = 300.0
    patience: Annotated[float, Gt(0)] = 900.0
    max_requests: Annotated[int, Gt(0)] | None = None
    max_items: Annotated[int, Gt(0)] | None = None

    harmless: ClassVar[frozenset[str]] = frozenset(
        {"url", "token_env", "token_file", "concurrency", "timeout", "patience", "max_requests", "max_items"}
    )
    """Settings that change no score: a study may be resumed with others."""


class PoolServer(BlackBox):
    """Scores recipes by asking a pool server, item by item."""

    Settings = PoolServerSettings

    def __init__(self, settings: PoolServerSettings, splits: Splits) -> None:
        self.settings = settings
        self.splits = splits
        self._lock = threading.RLock()

    # --- what there is ----------------------------------------------------------------------------------------

    def pool(self) -> RemotePool:
        """The server's members, or those of them that the settings name.

        Raises:
            ServiceError: the server does not answer.
            ConfigError: it has not these members.
        """
        offer = self._offer
        strangers = [name for name in self.settings.members if name not in offer.members]
        if strangers:
            raise ConfigError(
                f"{self.settings.url} has no member {strangers[0]!r}; name some of {', '.join(offer.members)}"
            )
        return RemotePool(
            place=self.settings.url,
            members=self.settings.members or offer.members,
            base=offer.base,
            groups=offer.groups,
            operators=offer.operators,
            content={"server": offer.digest},
            versions=offer.versions,
        )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The server's objectives."""
        return self._offer.objectives

    @property
    def losses(self) -> bool:  # type: ignore[override]  # known when the server is asked
        """Whether the server sends a loss for each item."""
        return self._offer.losses

    @property
    def parts(self) -> bool:  # type: ignore[override]  # as above
        """Whether the server scores some items only."""
        return self._offer.parts

    @property
    def noisy(self) -> bool:  # type: ignore[override]  # as above
        """Whether the server's scores differ from one time to the next."""
        return self._offer.noisy

    def items(self, split: Split) -> int:
        """How many items the split has; 0 when the server does not score them singly."""
        return self._offer.items.get(split, 0)

    def check(self, folder: Path) -> None:
        """Compare what the study wants with what the server offers.

        Raises:
            ConfigError: other splits than the server's, or a quota that is spent.
        """
        offer = self._offer
        splits: tuple[Split, ...] = ("search", "selection", "report")
        for split in splits:
            mine, theirs = self.splits.ranges(split), offer.splits.ranges(split)
            if mine and mine != theirs:
                there = ",".join(f"{start}:{stop}" for start, stop in theirs) or "no such split"
                raise ConfigError(f"splits.{split} is not what {self.settings.url} has, which is {there}; write that")
        if offer.limits.evaluations is not None and offer.limits.evaluations < 1:
            raise ConfigError(f"the quota at {self.settings.url} is spent; ask its owner for more evaluations")

    # --- scores -----------------------------------------------------------------------------------------------

    def score(self, model: Family, split: Split) -> Score:
        """The score on a whole split, as the server found it.

        Raises:
            AncestorsWanted: the server does not know all that the recipe is made of.
            ServiceError, SpentError: no answer, or none that makes sense.
            EvaluationError: the server cannot build or score this candidate.
        """
        return self._asked(Question(model.recipe, ancestors=model.ancestors, split=split), self.items(split))

    def score_part(self, model: Any, split: Split, places: NDArray[np.int64], replicate: int = 0) -> Score:
        """The score on some items of the split; errors as in `score`."""
        wanted = tuple(places.tolist())
        question = Question(model.recipe, None, model.ancestors, split, wanted, replicate)
        return self._asked(question, len(wanted))

    def _asked(self, question: Question, items: int) -> Score:
        body = dump(question)
        if len(body) > self._offer.limits.body_bytes:
            raise EvaluationError(f"the recipe is {len(body)} bytes with its ancestors, more than the server takes")
        reader = _Reader(question, items, tuple(one.name for one in self._offer.objectives), self._client)
        key = hashlib.blake2b(body, digest_size=16).hexdigest()
        return self._client.ask("POST", "/v1/score", reader, body=body, key=key, items=items)

    @property
    def _client(self) -> Client:
        with self._lock:  # threads that come first come together
            return self._connected

    @property
    def _offer(self) -> Offer:
        with self._lock:
            return self._offered

    @cached_property
    def _connected(self) -> Client:
        chosen = self.settings
        file = None if chosen.token_file is None else self.root / Path(chosen.token_file).expanduser()
        return Client(
            chosen.url,
            ClientSettings(
                concurrency=chosen.concurrency,
                timeout=chosen.timeout,
                patience=chosen.patience,
                requests=chosen.max_requests,
                items=chosen.max_items,
            ),
            Secret.found(chosen.token_env, file),
        )

    @cached_property
    def _offered(self) -> Offer:
        patience = min(FIRST_PATIENCE, self.settings.patience)
        return self._client.ask("GET", "/v1/pool", self._read_offer, patience=patience)

    def _read_offer(self, reply: Reply) -> Offer:
        try:
            offer = load(Offer, reply.body, strangers=True)
        except CodecError as error:
            raise ServiceError(
                f"{self.settings.url} is no pool server, or one of another version: {error}; correct the url"
            ) from error
        if offer.protocol != PROTOCOL:
            raise ServiceError(
                f"{self.settings.url} speaks protocol {offer.protocol} and this evomerge {PROTOCOL}; "
                "use the same version of evomerge on both sides"
            )
        return offer


@dataclass(frozen=True)
class _Reader:
    """Makes a score of a reply, if it is one to this very question: this recipe, these items in this order."""

    question: Question
    items: int
    objectives: tuple[str, ...]
    client: Client

    def __call__(self, reply: Reply) -> Score:
        if reply.status != 200:
            self._refused(reply)
        try:
            answer = load(Answer, reply.body, strangers=True)
            score = check_score(answer.score)
        except (CodecError, EvaluationError, OverflowError) as error:
            raise UnusableError(f"the answer is no score: {error}") from error
        recipe = self.question.recipe
        if recipe is None or answer.digest != recipe.digest or answer.split != self.question.split:
            raise UnusableError("the answer is about another candidate or split")
        if tuple(name for name, _ in answer.objectives) != self.objectives:
            raise UnusableError("the answer has other objectives than the server offered")
        places = tuple(range(self.items)) if self.question.places is None else self.question.places
        for numbers in (score.items, score.losses):
            if numbers is not None and (answer.places != places or len(numbers) != len(places)):
                raise UnusableError(f"the answer is not about the {self.items} items asked for, in their order")
        if self.items and score.items is None:
            raise UnusableError("the answer has no scores of items, which the server offered")
        return score

    def _refused(self, reply: Reply) -> None:
        """Raise what a refusal means."""
        try:
            why = load(Refused, reply.body, strangers=True).error
        except CodecError:
            why = Refusal("unknown", "no reason given")
        said = self.client.words(why.message)
        if why.code == "missing_ancestors" and not self.question.ancestors:
            raise AncestorsWanted(said)
        if reply.status == 409:
            raise UnusableError(said)
        if reply.status == 422 and why.code in ("bad_recipe", "failed"):
            raise EvaluationError(f"the server: {said}")
        raise ServiceError(f"{self.client.url} does not understand this evomerge ({reply.status}): {said}")
