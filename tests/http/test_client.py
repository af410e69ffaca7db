from __future__ import annotations

import json
import logging
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import ConfigError, ServiceError, SpentError
from evomerge.http import Client, ClientSettings, Reply, Secret, UnusableError

TOKEN = "evomerge_3q2-very-secret"
Server = Any
Ways = Any


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., Client]]:
    """Clients of the server, closed afterwards."""
    clients: list[Client] = []

    def make(url: str | None = None, secret: str | None = TOKEN, **settings: Any) -> Client:
        chosen: dict[str, Any] = {"timeout": 5.0, "patience": 10.0} | settings
        clients.append(Client(url or server.url, ClientSettings(**chosen), None if secret is None else Secret(secret)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def value(reply: Reply) -> Any:
    """A strict reader."""
    try:
        return json.loads(reply.body)
    except ValueError as error:
        raise UnusableError("half JSON") from error


def ask(client: Client, **options: Any) -> Any:
    return client.ask("POST", "/v1/score", value, body=b"{}", key="the-key", **options)


def test_a_request_carries_its_token_its_key_and_its_kind(server: Server, connect: Any) -> None:
    assert ask(connect()) == {}
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/score", b"{}")
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["idempotency-key"] == "the-key"
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "trouble",
    ["429", "500", "503", "408", "reset", "cut off", "noise", "half JSON", "not text", "drip", "drip head"],
)
def test_trouble_passes_and_the_same_is_asked_again(server: Server, ways: Ways, connect: Any, trouble: str) -> None:
    found = {
        "429": ways.reply(429, retry_after=0),
        "500": ways.reply(500, b"<html>oops"),
        "503": ways.reply(503, retry_after="0.01"),
        "408": ways.reply(408),
        "reset": ways.reset,
        "cut off": ways.cut_off,
        "noise": ways.noise,
        "half JSON": ways.reply(200, b'{"value": 1, '),
        "not text": ways.reply(200, b"\xff\xfe"),
        "drip": ways.drip,
        "drip head": ways.drip_head,
    }[trouble]
    server.script.extend([found, found])
    server.otherwise = ways.reply(200, b'{"value": 7}')
    client = connect(timeout=0.3 if "drip" in trouble else 5.0)
    assert ask(client, items=10) == {"value": 7}
    assert len(server.requests) == 3
    assert {one.headers["idempotency-key"] for one in server.requests} == {"the-key"}
    assert client.budget.spent == {"requests": 3, "items": 10}


def test_patience_ends_with_an_error_that_says_how_to_go_on(server: Server, ways: Ways, connect: Any) -> None:
    server.otherwise = ways.reply(503, json.dumps({"error": {"message": "resting"}}).encode())
    client = connect(patience=0.2)
    with pytest.raises(ServiceError, match=r"no usable answer in \d+ attempts; the last: 503: resting.*resume"):
        ask(client, items=10)
    assert len(server.requests) > 2
    assert client.budget.spent["items"] == 0


def test_a_server_may_say_when_to_come_again(server: Server, ways: Ways, connect: Any) -> None:
    """A wait beyond all patience is no wait."""
    server.otherwise = ways.reply(429, retry_after=3600)
    with pytest.raises(ServiceError, match="429"):
        ask(connect(patience=5.0))
    assert len(server.requests) == 1


def test_one_that_is_sent_away_holds_all_back(server: Server, ways: Ways, connect: Any) -> None:
    """While the server wants peace nobody asks, whoever it said it to."""
    server.script.append(ways.reply(429, retry_after="0.4"))
    client = connect(concurrency=8)
    first = threading.Thread(target=ask, args=(client,))
    first.start()
    while not server.requests:
        time.sleep(0.001)
    time.sleep(0.1)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: ask(client), range(8)))
    first.join()
    assert time.monotonic() - began > 0.2
    assert len(server.requests) == 10


@pytest.mark.parametrize(
    "names",
    [
        ("ratelimit-remaining", "ratelimit-reset"),
        ("x_ratelimit_remaining_requests", "x_ratelimit_reset_requests"),
    ],
)
def test_limits_are_learnt_from_headers(server: Server, ways: Ways, connect: Any, names: Any) -> None:
    server.script.append(ways.reply(200, b"{}", **{names[0]: 0, names[1]: "300ms" if "x" in names[0] else "0.3"}))
    client = connect()
    ask(client)
    began = time.monotonic()
    ask(client)
    assert time.monotonic() - began > 0.25


def test_no_more_are_in_flight_than_allowed(server: Server, ways: Ways, connect: Any) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def slow(connection: Any, request: Any) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        ways.reply()(connection, request)

    server.otherwise = slow
    client = connect(concurrency=3)
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda _: ask(client), range(24)))
    assert most == 3


def test_a_storm_loses_and_repeats_nothing(server: Server, ways: Ways, connect: Any) -> None:
    """Of every three requests one is refused, one breaks; each of sixty asks gets the answer to its own question."""
    bad = [ways.reply(429, retry_after=0), ways.reset, ways.reply(500), ways.cut_off, ways.reply(200, b"[1,")]

    def own(connection: Any, request: Any) -> None:
        ways.reply(200, request.body)(connection, request)

    server.otherwise = own
    for one in bad * 12:
        server.script.extend([one, own])
    client = connect(concurrency=16)

    def question(number: int) -> Any:
        return client.ask("POST", "/", value, body=str(number).encode(), key=str(number), items=5)

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(question, range(60))) == list(range(60))
    assert client.budget.spent["items"] == 300
    assert client.budget.spent["requests"] == len(server.requests) > 60


def test_redirects_are_not_followed(server: Server, servers: Any, ways: Ways, connect: Any) -> None:
    """Nor is the token shown to whoever is meant to get it."""
    other = servers()
    for status in (301, 302, 303, 307, 308):
        server.script.append(ways.reply(status, location=f"{other.url}/steal"))
        with pytest.raises(ServiceError, match="sends on to another address, which is not followed"):
            ask(connect())
    assert not other.requests


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_refusal_is_final_and_given_in_the_servers_words(
    server: Server, ways: Ways, connect: Any, status: int
) -> None:
    server.otherwise = ways.reply(status, json.dumps({"error": {"message": "no,\nnot \x1b[31myou"}}).encode())
    with pytest.raises(ServiceError, match=rf"refuses \({status}\): no, not \[31myou"):
        ask(connect())
    assert len(server.requests) == 1


def test_an_endless_answer_is_given_up(server: Server, ways: Ways, connect: Any) -> None:
    server.otherwise = ways.reply(200, b" " * 100_000)
    with pytest.raises(ServiceError, match="larger than 5000 bytes"):
        ask(connect(largest=5000, patience=0.05))


def test_budgets_are_hard(server: Server, ways: Ways, connect: Any) -> None:
    client = connect(items=25)
    assert [ask(client, items=10), ask(client, items=10)] == [{}, {}]
    with pytest.raises(SpentError, match="20 of this run's 25 items are spent and 10 more were wanted"):
        ask(client, items=10)
    assert ask(client, items=5) == {}
    assert len(server.requests) == 3
    server.otherwise = ways.reply(500)
    client = connect(requests=4)
    with pytest.raises(SpentError, match="4 of this run's 4 requests"):
        ask(client)
    assert len(server.requests) == 7


def test_budgets_are_hard_for_many_threads(server: Server, connect: Any) -> None:
    client = connect(requests=20, concurrency=16)

    def one(number: int) -> int:
        try:
            ask(client)
        except SpentError:
            return 0
        return 1

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(one, range(64))) == 20
    assert len(server.requests) == 20


def test_a_token_is_in_no_error_log_or_representation(
    server: Server, ways: Ways, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where the server sends it back."""
    caplog.set_level(logging.DEBUG)
    told = json.dumps({"error": {"message": f"your header was Bearer {TOKEN}"}}).encode()
    texts = [repr(Secret(TOKEN)), str(Secret(TOKEN))]
    for status in (401, 404, 500):
        server.otherwise = ways.reply(status, told)
        client = connect(patience=0.05)
        with pytest.raises(ServiceError) as caught:
            ask(client)
        texts += [str(caught.value), repr(caught.value), repr(client), repr(vars(caught.value))]
    assert all(TOKEN not in text for text in texts)
    assert TOKEN not in caplog.text
    assert "your header was Bearer ..." in texts[2]


def test_an_unreachable_host_is_named(connect: Any) -> None:
    with pytest.raises(ServiceError, match=r"http://127.0.0.1:9 gave no usable answer.*ConnectError"):
        ask(connect("http://127.0.0.1:9", patience=0.1))


def test_closing_ends_those_who_wait(server: Server, ways: Ways, connect: Any) -> None:
    server.otherwise = ways.drip
    client = connect(timeout=60.0)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            ask(client)
        except BaseException as error:  # a cancelled one is no Exception of ours
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not server.requests:
        time.sleep(0.001)
    client.close()
    thread.join(5)
    assert len(ended) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host", "is no address"),
        ("host:8000", "is no address"),
        ("https://", "is no address"),
        ("https://host/?token=1", "is no address"),
        ("https://host:port", "is no address"),
        ("https://user:password@host", "would be kept with the study; use token_env"),
        ("http://example.org", "would carry the token unencrypted"),
    ],
)
def test_addresses_that_would_not_do(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Client(url, ClientSettings(), Secret(TOKEN))
    assert "password" not in str(caught.value).replace("name or password", "")


def test_tokens_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("POOL", TOKEN)
    assert Secret.found(None, None) is None
    for found in (Secret.found("POOL", None), Secret.found(None, file)):
        assert found is not None
        assert found.header() == f"Bearer {TOKEN}"
    with pytest.raises(ConfigError, match="the environment variable NONE holds no token"):
        Secret.found("NONE", None)
    with pytest.raises(ConfigError, match="cannot read a token from"):
        Secret.found(None, tmp_path / "none")
    monkeypatch.setenv("POOL", f"{TOKEN}\r\nx-evil: 1")
    with pytest.raises(ConfigError, match="is no token") as caught:
        Secret.found("POOL", None)
    assert TOKEN not in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_that_nobody_vouches_for_is_refused(server: Server, connect: Any, tmp_path: Path) -> None:
    """At once, and before anything is sent."""
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(ServiceError, match=r"the certificate of https://127.0.0.1:.* is not valid: self"):
        ask(connect(server.url.replace("http:", "https:")))
    assert not server.requests
