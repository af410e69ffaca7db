"""The three addresses, over real connections."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.candidate import Candidate, Score
from evomerge.executor.port import Task
from evomerge.serve import app
from evomerge.serve.opened import open_pool, read
from evomerge.study.trial import mixture
from evomerge.wire import Answer, Offer, Question, dump, load

Serve = Any
Opened = Any
HEAD = b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
HALF = {"operator": "linear", "values": [0.5, 0.5]}


def lines(server: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.audit.read_text().splitlines()]


def test_the_offer_is_what_a_study_needs_and_nothing_more(serve: Serve, home: Path) -> None:
    with serve().client() as client:
        reply = client.get("/v1/pool")
    offer = load(Offer, reply.content)
    assert offer.members == ("low", "high")
    assert offer.items == {"search": 400, "selection": 63, "report": 83}
    assert [one.name for one in offer.objectives] == ["accuracy", "cross_entropy"]
    assert offer.losses
    assert str(home) not in reply.text
    assert "models/" not in reply.text


def test_the_score_is_that_of_a_worker_bit_for_bit(serve: Serve, opened: Opened) -> None:
    recipe = mixture(("low", "high"), (0.3, 0.7), opened.offer.groups)
    there = load(Answer, serve().ask(**json.loads(dump(Question(recipe)))).content).score
    here = opened.factory()(Task(Candidate(0, recipe)))
    assert isinstance(here, Score)
    assert there.objectives == here.objectives
    for mine, theirs in ((here.items, there.items), (here.losses, there.losses)):
        assert mine is not None
        assert theirs is not None
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_a_control_is_a_recipe_in_short(serve: Serve, opened: Opened) -> None:
    recipe = mixture(("low", "high"), (0.5, 0.5), opened.offer.groups)
    assert serve().ask(control=HALF, split="report").json()["digest"] == recipe.digest


def test_some_items_are_scored_in_the_order_asked(serve: Serve) -> None:
    server = serve()
    whole = server.ask(control=HALF).json()
    part = server.ask(control=HALF, places=[9, 3, 4, 399]).json()
    assert part["places"] == [9, 3, 4, 399]
    assert part["items"]["values"] == [whole["items"]["values"][place] for place in part["places"]]
    assert [one["items"] for one in lines(server)] == [400, 4]


@pytest.mark.parametrize(
    ("question", "status", "why"),
    [
        ({}, 422, "give either a recipe or a control"),
        ({"what": 1}, 400, "what: Unexpected keyword"),
        ({"control": HALF, "split": "training"}, 400, "split"),
        ({"control": HALF, "places": []}, 422, "places must be different whole numbers from 0 to 399"),
        ({"control": HALF, "places": [1, 1]}, 422, "places must be different"),
        ({"control": HALF, "places": [400]}, 422, "places must be different"),
        ({"control": HALF, "places": [-1]}, 422, "places must be different"),
        ({"control": HALF, "places": [0], "split": "report"}, 422, "scored as a whole"),
        ({"control": HALF, "replicate": -1}, 422, "count repetitions from 0"),
        ({"control": {"operator": "os:system", "values": [1, 1]}}, 422, "is not offered; this server has linear"),
        ({"control": {"operator": "ties", "values": [1, 1]}}, 422, "is not offered"),
        ({"control": {"operator": "task_arithmetic", "values": [1, 1]}}, 422, "needs a base"),
        ({"control": {"operator": "linear", "values": [1, "1"]}}, 400, "valid number"),
    ],
)
def test_bad_questions_are_refused_with_a_reason_and_cost_nothing(
    serve: Serve, question: Any, status: int, why: str
) -> None:
    server = serve(evaluations=1)
    reply = server.ask(**question)
    assert reply.status_code == status
    assert why in reply.json()["error"]["message"]
    assert server.ask(control=HALF).status_code == 200


def test_numbers_that_are_none_are_refused(serve: Serve) -> None:
    with serve().client() as client:
        for number in ("NaN", "1e999", "-Infinity"):
            body = '{"control": {"operator": "linear", "values": [0.5, ' + number + "]}}"
            reply = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
            assert (reply.status_code, "not finite" in reply.text) == (422, True)


def test_a_candidate_that_cannot_be_scored_is_told_without_telling_where(serve: Serve, home: Path) -> None:
    server = serve()
    reply = server.ask(control={"operator": "linear", "values": [1e300, 1e300]})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "failed")
    assert str(home) not in reply.text
    assert ".py" not in reply.text
    assert lines(server)[-1]["outcome"] == "failed"
    assert lines(server)[-1]["why"]


def test_ancestors_are_asked_for_and_remembered(serve: Serve, opened: Opened) -> None:
    server = serve()
    parent = mixture(("low", "high"), (0.5, 0.5), opened.offer.groups)
    child = replace(parent, sources=(f"recipe:{parent.digest}", "pool:low"))
    grandchild = replace(parent, sources=(f"recipe:{child.digest}", f"recipe:{parent.digest}"))
    question = json.loads(dump(Question(grandchild)))
    reply = server.ask(**question)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "missing_ancestors")
    assert set(reply.json()["error"]["missing"]) == {child.digest, parent.digest}
    assert server.ask(**json.loads(dump(Question(grandchild, None, (parent, child))))).status_code == 200
    assert server.ask(**question).status_code == 200


def test_too_much_ancestry_is_refused(serve: Serve, opened: Opened) -> None:
    parent = mixture(("low", "high"), (0.5, 0.5), opened.offer.groups)
    small = replace(opened, offer=replace(opened.offer, limits=replace(opened.offer.limits, ancestors=3)))
    family = [parent]
    for _ in range(5):
        family.append(replace(parent, sources=(f"recipe:{family[-1].digest}", "pool:low")))
    server = serve(small)
    reply = server.ask(**json.loads(dump(Question(family[-1], None, tuple(family[:-1])))))
    assert (reply.status_code, "the limit is 3" in reply.text) == (422, True)
    for one in family[:4]:
        assert server.ask(**json.loads(dump(Question(one)))).status_code == 200
    assert server.ask(**json.loads(dump(Question(family[4])))).status_code == 422


# --- once, and counted once ---------------------------------------------------------------------------------------


def test_the_same_key_is_computed_and_counted_once(serve: Serve) -> None:
    server = serve(evaluations=1)
    with server.client() as client, ThreadPoolExecutor(8) as threads:
        ask = lambda _: client.post("/v1/score", json={"control": HALF}, headers={"idempotency-key": "k"})  # noqa: E731
        replies = list(threads.map(ask, range(8)))
        assert {reply.status_code for reply in replies} == {200}
        assert len({reply.content for reply in replies}) == 1
        assert len(lines(server)) == 1
        other = client.post("/v1/score", json={"control": HALF, "split": "report"}, headers={"idempotency-key": "k"})
        assert (other.status_code, other.json()["error"]["code"]) == (422, "key_reused")
        new = client.post("/v1/score", json={"control": HALF}, headers={"idempotency-key": "n"})
        assert new.status_code == 403


def test_a_client_that_goes_away_has_its_answer_kept(serve: Serve) -> None:
    server = serve(evaluations=1)
    body = json.dumps({"control": HALF}).encode()
    head = HEAD + f"idempotency-key: k\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as gone:
        gone.sendall(head + body)
    deadline = time.monotonic() + 20
    while not lines(server):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with server.client() as client:
        again = client.post(
            "/v1/score", content=body, headers={"idempotency-key": "k", "content-type": "application/json"}
        )
    assert again.status_code == 200
    assert len(lines(server)) == 1


def test_quotas_outlive_the_server(serve: Serve) -> None:
    first = serve(tokens=True, quota={"items": 1000})
    assert [first.ask(control=HALF).status_code for _ in range(2)] == [200, 200]
    limits = {"evaluations": None, "items": 200}
    with first.client() as client:
        found = client.get("/v1/pool").json()["limits"]
        assert {name: found[name] for name in limits} == limits
    second = serve()  # over the same audit log
    refused = first.ask(control=HALF)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_spent")
    assert "200 items are left of this token's quota, and 400 were asked for" in refused.text
    assert first.ask(control=HALF, places=[1, 2]).status_code == 200
    assert second.service._ledger._used["alice"].items == 800


def test_the_log_says_who_had_what_scored_and_no_token(serve: Serve) -> None:
    server = serve(tokens=True)
    digest = server.ask(control=HALF).json()["digest"]
    (line,) = lines(server)
    assert (line["holder"], line["digest"], line["split"], line["items"]) == ("alice", digest, "search", 400)
    assert line["seconds"] > 0
    assert server.token not in server.audit.read_text()


# --- who may come in ----------------------------------------------------------------------------------------------


def test_without_a_valid_token_nothing_is_said(serve: Serve) -> None:
    server = serve(tokens=True)
    for token in (None, "evomerge_", "x" * 10_000, str(server.token)[:-1], str(server.token) + "x"):
        with server.client(token) as client:
            for reply in (client.get("/v1/pool"), client.post("/v1/score", json={"control": HALF})):
                assert reply.status_code == 401
                assert reply.headers["www-authenticate"] == "Bearer"
                assert "members" not in reply.text
            assert client.get("/healthz").json() == {"status": "ok"}
    assert not lines(server)


def test_a_token_that_is_taken_out_of_the_file_ends_at_once(serve: Serve, tmp_path: Path) -> None:
    server = serve(tokens=True)
    assert server.ask(control=HALF).status_code == 200
    (tmp_path / "tokens.json").write_text("{}")
    assert server.ask(control=HALF).status_code == 401
    (tmp_path / "tokens.json").write_text("{spoilt")
    reply = server.ask(control=HALF)
    assert reply.status_code == 503
    assert str(tmp_path) not in reply.text


def test_what_one_holder_sent_is_unknown_to_others(serve: Serve, opened: Opened, tmp_path: Path) -> None:
    from evomerge.serve.tokens import add

    server = serve(tokens=True)
    parent = mixture(("low", "high"), (0.5, 0.5), opened.offer.groups)
    child = replace(parent, sources=(f"recipe:{parent.digest}", "pool:low"))
    assert server.ask(**json.loads(dump(Question(parent)))).status_code == 200
    with server.client(add(tmp_path / "tokens.json", "bob")) as bob:
        assert bob.post("/v1/score", json=json.loads(dump(Question(child)))).status_code == 409
    assert server.ask(**json.loads(dump(Question(child)))).status_code == 200


def test_a_page_in_a_browser_cannot_ask(serve: Serve) -> None:
    """Neither by a form, whose kind is not JSON, nor under a name that leads to this machine."""
    with serve().client() as client:
        form = client.post("/v1/score", content=json.dumps({"control": HALF}), headers={"content-type": "text/plain"})
        assert form.status_code == 415
        assert client.get("/v1/pool", headers={"host": "evil.example.org"}).status_code == 400


@pytest.mark.parametrize("announced", [True, False])
def test_requests_have_a_largest_size(serve: Serve, opened: Opened, announced: bool) -> None:
    small = replace(opened, offer=replace(opened.offer, limits=replace(opened.offer.limits, body_bytes=1000)))
    with serve(small).client() as client:
        body = b" " * 5000 if announced else iter([b" " * 500] * 10)
        reply = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")


def test_a_request_that_never_ends_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.2)
    server = serve()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as slow:
        slow.sendall(HEAD + b"content-length: 9\r\n\r\n{")
        slow.settimeout(20)
        assert b" 408 " in slow.recv(1000)


def test_other_addresses_are_answered_in_json(serve: Serve) -> None:
    with serve().client() as client:
        assert client.get("/etc/passwd").json()["error"]["code"] == "not_found"
        assert client.get("/v1/score").json()["error"]["code"] == "bad_method"


# --- many at once, and the end ------------------------------------------------------------------------------------


class Gate:
    """An executor's evaluator that waits to be let go."""

    def __init__(self, opened: Opened) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self._inner = opened.factory()

    def __call__(self) -> Any:
        def evaluate(task: Task, ancestors: Any) -> Any:
            self.entered.release()
            assert self.open.wait(30)
            return self._inner(task, ancestors)

        return evaluate


def test_one_too_many_is_sent_away_for_a_while(serve: Serve, opened: Opened) -> None:
    gate = Gate(opened)
    server = serve(replace(opened, factory=gate), waiting=2, evaluations=4)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(server.ask, control=HALF)
        assert gate.entered.acquire(timeout=20)
        others = [threads.submit(server.ask, control=HALF) for _ in range(2)]
        deadline = time.monotonic() + 20
        while len(server.service._desk._waiting) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        away = server.ask(control=HALF)
        assert (away.status_code, away.json()["error"]["code"]) == (429, "busy")
        assert int(away.headers["retry-after"]) >= 1
        gate.open.set()
        assert [one.result().status_code for one in (first, *others)] == [200, 200, 200]
    assert server.ask(control=HALF).status_code == 200  # who was sent away has lost nothing of the quota
    assert server.ask(control=HALF).status_code == 403


def test_an_error_that_is_the_servers_own_is_not_counted_and_passes(serve: Serve, opened: Opened) -> None:
    from evomerge.errors import PoolError

    broken: list[bool] = [True]

    def factory() -> Any:
        if broken:
            raise PoolError("/home/owner/models/low is gone")
        return opened.factory()

    server = serve(replace(opened, factory=factory), evaluations=1)
    reply = server.ask(control=HALF)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert "/home" not in reply.text
    assert lines(server)[-1]["why"] == "/home/owner/models/low is gone"
    broken.clear()
    assert server.ask(control=HALF).status_code == 200


def test_members_may_be_anonymous(serve: Serve, home: Path, opened: Opened) -> None:
    (home / "secret.yaml").write_text((home / "server.yaml").read_text() + "anonymous: true\n")
    file = read(home / "secret.yaml")
    server = serve(open_pool(file.settings, file.root))
    with server.client() as client:
        text = client.get("/v1/pool").text
    assert json.loads(text)["members"] == ["m1", "m2"]
    assert "low" not in text
    assert server.ask(control=HALF).json()["items"] == serve().ask(control=HALF).json()["items"]
    unknown = mixture(("low", "high"), (0.5, 0.5), opened.offer.groups)
    assert "m1, m2" in server.ask(**json.loads(dump(Question(unknown)))).text
