"""The worker's edge: whatever one evaluation does, what leaves here is an answer, or an error that is not its fault."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from evomerge.candidate import Recipe, Score, check_score
from evomerge.errors import ConfigError, EvaluationError, EvomergeError, ExecutorError, PoolError, ServiceError
from evomerge.executor.port import Evaluator, Factory, Missing, Task

BLAMELESS = (ConfigError, PoolError, ServiceError)
"""What an evaluation may raise that no candidate is to blame for: data, pool or server are not there, or not right."""

LONGEST_REASON = 400  # characters: a line in a table, not a log


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one attempt at a task gave no score, in one line."""

    reason: str


STILL_MISSING = Failure("the evaluator was given all ancestors and still asks for some")


def set_up(factory: Factory) -> Evaluator:
    """The factory's evaluator.

    Raises:
        EvomergeError: as the factory raised it; any other exception becomes an `ExecutorError`.
    """
    try:
        return factory()
    except EvomergeError:
        raise
    except Exception as error:
        raise ExecutorError(f"the evaluator cannot be set up: {describe(error)}") from error


def evaluate(evaluator: Evaluator, task: Task, ancestors: tuple[Recipe, ...]) -> Score | Missing | Failure:
    """One attempt.

    Raises:
        ConfigError, PoolError, ServiceError: the study's data, pool or server is wrong; no candidate is to blame.
    """
    try:
        answer = evaluator(task, ancestors)
        return answer if isinstance(answer, Missing) else usable(answer)
    except BLAMELESS:
        raise
    except (Exception, SystemExit) as error:  # the one broad except: anything may go wrong in a fitness
        return Failure(describe(error))


def usable(score: Score) -> Score:
    """The score with plain floats as objectives.

    Raises:
        EvaluationError: not a score, or one with holes; see `check_score`.
    """
    if not isinstance(score, Score):
        raise EvaluationError(f"the evaluation returned {type(score).__name__}, not a Score")
    score = check_score(score, None if score.items is None else score.items.size)
    if not all(type(text) is str for note in score.notes for text in note):
        raise EvaluationError(f"the notes of a score must be pairs of text, not {score.notes!r:.100}")
    return score


def describe(error: BaseException) -> str:
    """Type, message and innermost place of an exception in one line; an expected error's message says where itself."""
    text = " ".join(str(error).split()) or "no message"
    if len(text) > LONGEST_REASON:
        text = text[: LONGEST_REASON - 3] + "..."
    name = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, EvomergeError) or not frames:
        return f"{name}: {text}"
    place = frames[-1]
    return f"{name}: {text} ({Path(place.filename).name}:{place.lineno} in {place.name})"
