"""The fitness that asks a pool server, against one that answers wrongly in every way."""

from __future__ import annotations

import random
import re
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge import config
from evomerge.blackbox import AncestorsWanted, Family
from evomerge.candidate import Recipe, Segment
from evomerge.errors import ConfigError, EvaluationError, ServiceError
from evomerge.fitness import Fitness, Splits
from evomerge.store import open_store
from evomerge.strategy import Group, Objective
from evomerge.study import drive
from evomerge.testing.fitness import FitnessContract
from evomerge.wire import PROTOCOL, Answer, Limits, Numbers, Offer, Question, Refusal, Refused, dump, load
from evomerge_fitness.pool_server import PoolServer, PoolServerSettings

ITEMS = 15
WHOLE = Splits(search=((0, 7), (9, 12)), selection=((12, 15),), report=((7, 9),))
OFFER = Offer(
    protocol=PROTOCOL,
    members=("a", "b", "c"),
    base=None,
    groups=(Group("all", 10), Group("rest", 4)),
    operators=("linear", "slerp"),
    objectives=(Objective("score"),),
    splits=WHOLE,
    items={"search": 10, "selection": 3, "report": 2},
    losses=True,
    parts=True,
    noisy=False,
    digest="0" * 32,
    workers=4,
    versions={"torch": "9"},
    limits=Limits(1 << 20, 100, 1000, 100, None, None),
)
Server = Any
Ways = Any


def truth(question: Question) -> Answer:
    """A score made of the recipe's digest and the items' numbers alone."""
    assert question.recipe is not None
    chosen = [np.arange(*span) for span in WHOLE.ranges(question.split)]
    numbers = np.concatenate(chosen)
    places = tuple(range(len(numbers))) if question.places is None else question.places
    seed = int(question.recipe.digest[:8], 16)
    losses = np.cos(seed % 1000 + numbers[list(places)]).astype(np.float32)
    items = losses > 0
    score = ("score", float(items.mean()))
    return Answer(question.recipe.digest, question.split, (score,), places, Numbers.of(items), Numbers.of(losses))


def honest(ways: Ways) -> Any:
    """Answers as it should."""

    def answer(connection: Any, request: Any) -> None:
        body = dump(OFFER) if request.path == "/v1/pool" else dump(truth(load(Question, request.body)))
        ways.reply(200, body)(connection, request)

    return answer


def wrong_answers(right: Answer) -> dict[str, bytes]:
    """Everything that is JSON, and no answer to the question."""
    assert right.items is not None
    assert right.losses is not None
    fewer = Numbers("bool", right.items.values[:-1])
    back = right.places[::-1]
    return {
        "another candidate's": dump(replace(right, digest="f" * 32)),
        "another split's": dump(replace(right, split="report")),
        "too few items": dump(replace(right, items=fewer)),
        "too few places": dump(replace(right, places=right.places[:-1])),
        "an item twice": dump(replace(right, places=(*right.places[:-1], right.places[0]))),
        "reordered items": dump(replace(right, places=back, items=Numbers("bool", right.items.values[::-1]))),
        "no items": dump(replace(right, items=None)),
        "other objectives": dump(replace(right, objectives=(("other", 1.0),))),
        "infinite": re.sub(rb'"score",[^]]+', b'"score",1e999', dump(right), count=1),
        "not a number": dump(right).replace(b'"losses":', b'"losses":{"dtype":"float32","values":[NaN]},"old":'),
        "a list": b"[]",
        "nothing": b"",
        "half": dump(right)[:-20],
        "deep": b"[" * 100_000,
    }


def made(server: Server, **settings: Any) -> PoolServer:
    chosen: dict[str, Any] = {"timeout": 10.0, "patience": 20.0} | settings
    return PoolServer(PoolServerSettings(server.url, **chosen), WHOLE)


def family(number: float = 1.0) -> Family:
    segments = tuple(Segment(group.name, 0, group.size, (number, 0.5)) for group in OFFER.groups)
    return Family(Recipe("linear", ("pool:a", "pool:b"), segments))


class TestContract(FitnessContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: Server, ways: Ways) -> None:
        server.otherwise = honest(ways)
        self.server = server

    def make(self, splits: Splits, folder: Path) -> Fitness:
        return PoolServer(PoolServerSettings(self.server.url), splits)

    def subject(self, fitness: Fitness, folder: Path, number: int) -> Any:
        return family(float(number))

    def test_items_come_in_the_order_of_the_splits(self, fitness: Fitness, data: Path, tmp_path: Path) -> None:
        """The splits are the server's: others are refused."""
        with pytest.raises(ConfigError, match=r"splits\.search is not what"):
            self.make(Splits(search=((9, 12), (0, 7))), data).check(tmp_path)


WRONG = sorted(wrong_answers(truth(Question(family().recipe))))


@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_that_is_none_is_asked_for_again(server: Server, ways: Ways, wrong: str) -> None:
    fitness = made(server)
    server.otherwise = honest(ways)
    assert fitness.items("search") == 10
    server.script.append(ways.reply(200, wrong_answers(truth(Question(family().recipe)))[wrong]))
    score = fitness.score(family(), "search")
    assert Numbers.of(score.items) == truth(Question(family().recipe)).items  # type: ignore[arg-type]
    assert len(server.requests) == 3


def test_an_answer_that_comes_twice_is_not_that_to_the_next(server: Server, ways: Ways) -> None:
    server.otherwise = honest(ways)
    fitness = made(server, concurrency=1)
    fitness.items("search")
    server.script.append(ways.twice(dump(truth(Question(family(1.0).recipe)))))
    for number in (1.0, 2.0, 3.0):
        question = Question(family(number).recipe)
        assert fitness.score(family(number), "search").objectives == truth(question).objectives


def test_a_study_through_every_trouble_is_the_study_without(
    server: Server, ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three answers are spoilt, in an order that threads make anew each time; 120 candidates, 8 in flight."""
    quiet = found(server, ways, tmp_path, honest(ways))
    lock, seeded = threading.Lock(), random.Random(7)

    def spoiling(connection: Any, request: Any) -> None:
        with lock:
            dice = seeded.randrange(12)
        right = truth(load(Question, request.body)) if request.path == "/v1/score" else None
        if right is None or dice < 4:
            return honest(ways)(connection, request)
        wrong = list(wrong_answers(right).values())
        bad = [
            ways.reply(429, retry_after=0),
            ways.reply(500, b"oops"),
            ways.reply(503, retry_after="0.01"),
            ways.reset,
            ways.cut_off,
            ways.twice(dump(right)),
            ways.noise,
            ways.reply(200, wrong[seeded.randrange(len(wrong))]),
        ]
        return bad[dice - 4](connection, request)

    assert found(server, ways, tmp_path, spoiling) == quiet
    assert len(server.requests) > 240


def found(server: Server, ways: Ways, folder: Path, way: Any) -> Any:
    server.otherwise = way
    (folder / "study.yaml").write_text(f"""\
study: one
fitness: {{name: pool_server, url: "{server.url}", patience: 60}}
splits: {{search: "0:7,9:12", selection: "12:15", report: "7:9"}}
strategy: {{name: cma, popsize: 8}}
executor: {{kind: threads, workers: 8}}
budget: {{evaluations: 120}}
""")
    store = open_store(f"memory://{uuid.uuid4().hex}")
    drive.begin(drive.create(config.read(folder / "study.yaml")), store)
    study = store.open("one")
    told = [
        (one.candidate.number, one.candidate.recipe.digest, one.failure, one.score and one.score.objectives)
        for split in ("search", "selection", "report")
        for one in study.scores(split)  # type: ignore[arg-type]
    ]
    assert len(told) == 120 + 10 + 1
    return told, study.summary().final


def test_what_a_candidate_is_to_blame_for_fails_it(server: Server, ways: Ways) -> None:
    server.otherwise = honest(ways)
    fitness = made(server)
    fitness.items("search")
    for code in ("failed", "bad_recipe"):
        server.script.append(ways.reply(422, dump(Refused(Refusal(code, "weights overflow")))))
        with pytest.raises(EvaluationError, match="the server: weights overflow"):
            fitness.score(family(), "search")
    server.script.append(ways.reply(400, dump(Refused(Refusal("bad_request", "what?")))))
    with pytest.raises(ServiceError, match=r"does not understand this evomerge \(400\): what\?"):
        fitness.score(family(), "search")


def test_ancestors_are_sent_when_they_are_wanted(server: Server, ways: Ways) -> None:
    server.otherwise = honest(ways)
    fitness = made(server)
    fitness.items("search")
    wanted = ways.reply(409, dump(Refused(Refusal("missing_ancestors", "send them", ("0" * 32,)))))
    server.script.append(wanted)
    with pytest.raises(AncestorsWanted):
        fitness.score(family(), "search")
    server.script.append(wanted)  # although they were sent: this makes no sense, so it is asked again
    fitness.score(Family(family().recipe, (family(2.0).recipe,)), "search")
    assert len(load(Question, server.requests[-1].body).ancestors) == 1


def test_more_than_the_server_takes_is_not_sent(server: Server, ways: Ways) -> None:
    small = replace(OFFER, limits=replace(OFFER.limits, body_bytes=200))
    server.otherwise = ways.reply(200, dump(small))
    with pytest.raises(EvaluationError, match="more than the server takes"):
        made(server).score(family(), "search")
    assert len(server.requests) == 1


def test_a_server_that_is_none_is_told_from_one_of_another_version(server: Server, ways: Ways) -> None:
    server.otherwise = ways.reply(200, b"<html>welcome</html>")
    with pytest.raises(ServiceError, match="is no pool server, or one of another version"):
        made(server).pool()
    server.otherwise = ways.reply(200, dump(replace(OFFER, protocol=99)))
    with pytest.raises(ServiceError, match="speaks protocol 99"):
        made(server).pool()
    future = dump(OFFER).replace(b'{"protocol"', b'{"news": [1], "protocol"', 1)
    server.otherwise = ways.reply(200, future)
    assert made(server).pool().members == ("a", "b", "c")


def test_threads_that_come_first_connect_once(server: Server, ways: Ways) -> None:
    server.otherwise = honest(ways)
    fitness = made(server)
    threads = [threading.Thread(target=fitness.score, args=(family(), "search")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.path for one in server.requests].count("/v1/pool") == 1


def test_the_token_file_lies_beside_the_study(server: Server, ways: Ways, tmp_path: Path) -> None:
    server.otherwise = honest(ways)
    (tmp_path / "token").write_text("evomerge_abc\n")
    fitness = made(server, token_file="token")
    fitness.root = tmp_path
    fitness.pool()
    assert server.requests[0].headers["authorization"] == "Bearer evomerge_abc"
