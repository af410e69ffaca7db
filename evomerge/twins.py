"""Which candidates are to be evaluated in the very same way as an earlier one, so that nothing is scored twice."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from evomerge.candidate import WHOLE, Candidate, Cost, Evaluated, Request

REMEMBERED = 1 << 15
"""How many candidates back a twin is looked for; this bounds the memory (about 10 MB)."""

NOTE = "same as"


class Twins:
    """Remembers recipes and requests. Whether a candidate has a twin follows from the candidates before it alone."""

    def __init__(self) -> None:
        self._newest: OrderedDict[str | tuple[str, Request], int] = OrderedDict()
        self._waiting: dict[int, list[Candidate]] = {}  # by the twin whose result they wait for

    def add(self, number: int, digest: str, request: Request) -> int | None:
        """The newest earlier candidate of the same recipe and request, if there is one; call it in order of number."""
        newest = self._newest
        key = digest if request is WHOLE or request == WHOLE else (digest, request)
        twin = newest.pop(key, None)
        newest[key] = number
        while next(iter(newest.values())) < number - REMEMBERED:
            newest.popitem(last=False)
        return None if twin is None or twin < number - REMEMBERED else twin

    def wait(self, twin: int, candidate: Candidate) -> None:
        """The candidate's result will be that of its twin, which is out."""
        self._waiting.setdefault(twin, []).append(candidate)

    def served(self, evaluated: Evaluated) -> list[Evaluated]:
        """The results of those who waited for this one, and of those who waited for them."""
        results = [evaluated]
        for one in results:
            results += [result_of_twin(candidate, one) for candidate in self._waiting.pop(one.candidate.number, ())]
        return results[1:]


def result_of_twin(candidate: Candidate, twin: Evaluated) -> Evaluated:
    """The twin's result as the candidate's own, at no cost; its notes say whose it is."""
    score = twin.score
    if score is not None:
        kept = tuple(note for note in score.notes if note[0] != NOTE)
        score = replace(score, notes=(*kept, (NOTE, f"candidate {twin.candidate.number}")))
    return Evaluated(candidate, score, twin.failure, Cost(attempts=0))
