"""What happens to a question: checked, counted, scored, written down, answered. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from evomerge import lineage
from evomerge.candidate import Evaluated, Recipe, Score
from evomerge.errors import CodecError, EvomergeError, RecipeError, SpentError
from evomerge.serve.desk import Desk, FullError, Job
from evomerge.serve.ledger import Entry, Ledger
from evomerge.serve.opened import Opened
from evomerge.serve.tokens import Holder
from evomerge.wire import Answer, Numbers, Offer, Question, Refusal, Refused, dump, load

_PATH = re.compile(r"(?:\b[A-Za-z]:)?[^\s'\",;:()]*[/\\][^\s'\",;:()]*")
_TOLD = ("RecipeError: ", "EvaluationError: ")
"""Failures whose reason is sent; what else may go wrong in an evaluation is its owner's to know."""


@dataclass(frozen=True)
class Reply:
    """A status and a body; ``retry_after`` in seconds. ``lasting``: asking the same again gives the same."""

    status: int
    body: bytes
    retry_after: int | None = None
    lasting: bool = False


class RefusedError(Exception):
    """A question that is not answered."""

    def __init__(
        self, status: int, code: str, message: str, missing: Iterable[str] = (), after: int | None = None
    ) -> None:
        super().__init__(message)
        self.reply = refusal(status, code, message, missing, after)


def refusal(status: int, code: str, message: str, missing: Iterable[str] = (), after: int | None = None) -> Reply:
    """A reply that says why there is no answer. Says nothing of this machine's folders."""
    return Reply(status, dump(Refused(Refusal(code, _PATH.sub("...", message), tuple(missing)))), after)


class Service:
    """One served pool. All methods are called in one event loop."""

    def __init__(self, opened: Opened, ledger: Ledger) -> None:
        self._opened = opened
        self._ledger = ledger
        limits = opened.settings.limits
        self._desk = Desk(opened.executor, limits.waiting)
        self._recipes: dict[str, _Recipes] = defaultdict(lambda: _Recipes(limits.recipes_mb << 20))
        self._kept = limits.answers
        self._answers: OrderedDict[tuple[str, str], tuple[bytes, asyncio.Task[Reply]]] = OrderedDict()

    def close(self) -> None:
        """End what scores candidates."""
        self._desk.close()
        self._ledger.close()

    def offer(self, holder: Holder) -> Offer:
        """What there is, with the limits as they are for this holder."""
        evaluations, items = self._ledger.left(holder)
        offer = self._opened.offer
        return replace(offer, limits=replace(offer.limits, evaluations=evaluations, items=items))

    async def ask(self, holder: Holder, body: bytes, key: str | None) -> Reply:
        """The reply to a question. Under the same ``key`` it is computed and counted once, as long as it is kept."""
        if key is None:
            return await self._reply(holder, body)
        digest, place = hashlib.blake2b(body).digest(), (holder.name, key)
        known = self._answers.get(place)
        if known is not None and known[0] != digest:
            return refusal(422, "key_reused", "this idempotency key came with another question before; take a new one")
        task = known[1] if known is not None else asyncio.create_task(self._reply(holder, body))
        self._answers[place] = digest, task
        self._answers.move_to_end(place)
        lasting = False
        try:
            reply = await asyncio.shield(task)  # goes on for the next one who asks, if this one goes away
            lasting = reply.lasting
        finally:
            if not lasting and place in self._answers and self._answers[place][1] is task:
                del self._answers[place]
        while len(self._answers) > self._kept:
            self._answers.popitem(last=False)
        return reply

    async def _reply(self, holder: Holder, body: bytes) -> Reply:
        try:
            question, job = self._job(holder, body)
            return await self._answer(holder, question, job)
        except RefusedError as error:
            return error.reply

    async def _answer(self, holder: Holder, question: Question, job: Job) -> Reply:
        """Count it, have it scored, write it down. What could not be scored for another's fault is not counted."""
        size = self._opened.offer.items[question.split]
        items = job.request.size or size
        entry = Entry(holder.name, job.recipe.digest, question.split, items, 0.0, "unavailable")
        self._reserve(holder, entry)
        counted = False
        try:
            evaluated = await self._evaluated(job)
            outcome = replace(entry, seconds=round(evaluated.cost.seconds, 6))
            if evaluated.score is None:
                reply = _failed(evaluated)
                self._ledger.write(replace(outcome, outcome="failed", why=evaluated.failure or ""))
            else:
                reply = _scored(question, job, evaluated.score, size)
                self._ledger.write(replace(outcome, outcome="scored"))
            counted = True
        except (EvomergeError, OSError) as error:
            self._note(replace(entry, why=str(error)))
            message = "candidates cannot be scored at present; the server's log says why"
            raise RefusedError(503, "unavailable", message, after=5) from error
        finally:
            if not counted:
                self._ledger.refund(holder, items)
        return reply

    def _reserve(self, holder: Holder, entry: Entry) -> None:
        try:
            self._ledger.reserve(holder, entry.items)
        except SpentError as error:
            self._note(replace(entry, outcome="refused", why=str(error)))
            raise RefusedError(403, "quota_spent", str(error)) from error

    async def _evaluated(self, job: Job) -> Evaluated:
        try:
            future = self._desk.submit(job)
        except FullError as error:
            raise RefusedError(429, "busy", str(error), after=error.seconds) from error
        return await asyncio.wrap_future(future)

    def _job(self, holder: Holder, body: bytes) -> tuple[Question, Job]:
        """The question, and what is to be done about it.

        Raises:
            RefusedError: the question is not acceptable.
        """
        offer = self._opened.offer
        try:
            question = load(Question, body)
            if question.split not in offer.items:
                raise RecipeError(f"there is no split {question.split}; there are {', '.join(offer.items)}")
            recipe = self._opened.rules.recipe(question)
            request = self._opened.rules.request(question, offer.items[question.split])
            if request.ranges is not None and not offer.parts:
                raise RecipeError("this server scores whole splits only; leave out places")
            if len(question.ancestors) > offer.limits.ancestors:
                raise RecipeError(f"{len(question.ancestors)} ancestors; the limit is {offer.limits.ancestors}")
            for one in question.ancestors:
                self._opened.rules.check(one)
        except CodecError as error:
            raise RefusedError(400, "bad_request", str(error)) from error
        except RecipeError as error:
            raise RefusedError(422, "bad_recipe", str(error)) from error
        recipes = self._recipes[holder.name]
        for one in (*question.ancestors, recipe):
            recipes.keep(one)
        sent = {one.digest: one for one in question.ancestors}
        return question, Job(recipe, self._family(recipe, sent, recipes), question.split, request)

    def _family(self, recipe: Recipe, sent: Mapping[str, Recipe], recipes: _Recipes) -> dict[str, Recipe]:
        """All ancestors by digest, out of what was sent along and what is remembered.

        Raises:
            RefusedError: some are not known, or they are too many.
        """
        limit = self._opened.offer.limits.ancestors
        found: dict[str, Recipe] = {}

        def lookup(digests: Iterable[str]) -> dict[str, Recipe]:
            known = ((digest, sent.get(digest) or recipes.get(digest)) for digest in digests)
            level = {digest: one for digest, one in known if one is not None}
            missing = [digest for digest in digests if digest not in level]
            if missing:
                message = f"{len(missing)} ancestors are not known here (any more); send them along"
                raise RefusedError(409, "missing_ancestors", message, missing[:100])
            found.update(level)
            if len(found) > limit:
                raise RefusedError(422, "bad_recipe", f"the recipe has more than {limit} ancestors, which is the limit")
            return level

        lineage.ancestry(recipe, frozenset(), lookup)
        return found

    def _note(self, entry: Entry) -> None:
        """Write down what could not be done, if the disk is not the very reason."""
        try:
            self._ledger.write(entry)
        except OSError:
            return


def _scored(question: Question, job: Job, score: Score, size: int) -> Reply:
    items, losses = (None if array is None else Numbers.of(array) for array in (score.items, score.losses))
    places: tuple[int, ...] = ()
    if items is not None:
        places = tuple(range(size)) if question.places is None else question.places
    answer = Answer(job.recipe.digest, question.split, score.objectives, places, items, losses)
    return Reply(200, dump(answer), lasting=True)


def _failed(evaluated: Evaluated) -> Reply:
    """The reply about a candidate that cannot be built or scored, and never will be."""
    why = evaluated.failure or ""
    told = next((why.removeprefix(start) for start in _TOLD if why.startswith(start)), "")
    reply = refusal(422, "failed", told or "the candidate cannot be built or scored; the server's log says why")
    return replace(reply, lasting=True)


class _Recipes:
    """The recipes that a holder has sent, up to so many bytes; the least recently used go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[str, Recipe] = OrderedDict()

    def keep(self, recipe: Recipe) -> None:
        self._kept.setdefault(recipe.digest, recipe)
        self._bytes += 0 if self.get(recipe.digest) is not recipe else _room(recipe)
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= _room(self._kept.popitem(last=False)[1])

    def get(self, digest: str) -> Recipe | None:
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found


def _room(recipe: Recipe) -> int:
    """About the bytes of a recipe as objects: its text, several times."""
    return 500 + 8 * len(recipe.text)
