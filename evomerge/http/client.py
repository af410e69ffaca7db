"""The HTTP client of everything that is scored elsewhere.

A request is repeated until it has a usable answer or patience ends: after errors of the network, timeouts, 408, 425,
429, 5xx, and answers that their reader calls unusable. Waiting times grow and are jittered, which changes when
something is asked and nothing else; what a server says of its limits (``Retry-After``, remaining requests) holds all
requests back. Redirects are not followed, certificates are verified, and secrets appear in no message.

Under the hood is one event loop in a thread of its own, so that many threads may ask at once and every attempt has a
limit in time however slowly its bytes come.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from evomerge.errors import ServiceError
from evomerge.http.lines import Lines, Reply, Request, Trouble, checked
from evomerge.http.pace import Budget, Pace, seconds_of
from evomerge.http.secret import Secret

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0
"""Seconds to wait after the first failure, doubled at each further one, and the most."""

_AGAIN = frozenset({408, 425, 429})
_NEVER = frozenset({401, 402, 403, 404, 405, 407, 410, 501})
_SHOWN = 300  # characters of a server's own words


@dataclass(frozen=True)
class ClientSettings:
    """How a server is asked.

    ``concurrency`` requests are in flight at most; one attempt may take ``timeout`` seconds from the first byte sent to
    the last received, a request ``patience`` seconds with all its repetitions. ``requests`` and ``items`` are budgets
    (``None``: none): attempts that are sent, and items that are asked for. ``largest`` is that of an answer in bytes.
    """

    concurrency: int = 8
    timeout: float = 300.0
    patience: float = 900.0
    requests: int | None = None
    items: int | None = None
    largest: int = 256 << 20


class UnusableError(Exception):
    """What a reader raises about an answer that makes no sense, such as half a JSON text: it is asked again."""


class Client:
    """Asks one server. May be used by many threads at once; closed when it is garbage, or by ``close``.

    Raises:
        ConfigError: an address that is none, holds a password, or would carry the secret unencrypted.
    """

    def __init__(self, url: str, settings: ClientSettings, secret: Secret | None = None) -> None:
        self.url = checked(url, secret is not None)
        self._settings = settings
        self._secret = secret
        self.budget = Budget(settings.requests, settings.items)
        self._pace = Pace()
        self._loop = asyncio.new_event_loop()
        self._lines = Lines(self.url, settings.concurrency, secret)
        thread = threading.Thread(target=_run, args=(self._loop,), name="evomerge-http", daemon=True)
        thread.start()
        self._end = weakref.finalize(self, _end, self._loop, thread, self._lines)

    def close(self) -> None:
        """Drop what is in flight and close connections. Safe to call twice."""
        self._end()

    def ask(
        self,
        method: str,
        path: str,
        read: Callable[[Reply], T],
        *,
        body: bytes | None = None,
        key: str | None = None,
        items: int = 0,
        patience: float | None = None,
    ) -> T:
        """What ``read`` makes of the answer. It is given answers of 2xx, and of 4xx that are about the request itself.

        ``key`` is sent as ``Idempotency-Key``, the same one with every repetition; ``items`` are taken from the budget
        once, and given back if no answer comes; ``patience`` is in the place of the settings'.

        Raises:
            ServiceError: no usable answer.
            SpentError: the budget does not suffice.
            Exception: whatever else ``read`` raises.
        """
        headers = {} if key is None else {"idempotency-key": key}
        if body is not None:
            headers["content-type"] = "application/json"
        self.budget.spend("items", items)
        waiting = asyncio.run_coroutine_threadsafe(
            self._persist(
                Request(method, path, headers, body), read, self._settings.patience if patience is None else patience
            ),
            self._loop,
        )
        try:
            return waiting.result()
        except BaseException:
            waiting.cancel()
            self.budget.give_back("items", items)
            raise

    async def _persist(self, request: Request, read: Callable[[Reply], T], patience: float) -> T:
        """Ask until there is an answer."""
        attempts = 0
        async with self._lines.free() as line:
            give_up = time.monotonic() + patience
            while True:
                await self._pace.turn()
                self.budget.spend("requests", 1)
                attempts += 1
                try:
                    reply = await self._lines.send(line, request, self._settings.timeout, self._settings.largest)
                    return read(self._judged(reply))
                except UnusableError as error:
                    trouble = Trouble(str(error))
                except Trouble as error:
                    trouble = error
                wait = _wait(attempts, trouble.after)
                if time.monotonic() + wait > give_up:
                    raise ServiceError(self._said(attempts, trouble))
                await asyncio.sleep(wait)

    def _judged(self, reply: Reply) -> Reply:
        """The reply, if it is one for the reader.

        Raises:
            Trouble: ask again.
            ServiceError: asking again is of no use.
        """
        self._pace.learn(reply.headers)
        if 300 <= reply.status < 400:
            raise ServiceError(f"{self.url} sends on to another address, which is not followed; correct the url")
        if reply.status in _NEVER:
            raise ServiceError(f"{self.url} refuses ({reply.status}): {self._words(reply)}")
        if reply.status in _AGAIN or reply.status >= 500 or reply.status < 200:
            after = seconds_of(reply.headers.get("retry-after", ""))
            if reply.status == 429 and after is not None:
                self._pace.hold(after)
            raise Trouble(f"{reply.status}: {self._words(reply)}", after)
        return reply

    def words(self, text: str) -> str:
        """A server's words as they may be shown: short, in one line, without the secret."""
        text = "".join(one if one.isprintable() else " " for one in text)
        text = text if self._secret is None else self._secret.hidden(text)
        return " ".join(text.split())[:_SHOWN] or "no reason given"

    def _words(self, reply: Reply) -> str:
        """What an error's body says, if it is JSON of the common form ``{"error": {"message": ...}}``."""
        try:
            return self.words(str(json.loads(reply.body)["error"]["message"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            return "no reason given"

    def _said(self, attempts: int, trouble: Trouble) -> str:
        tries = f"{attempts} attempt{'s' if attempts > 1 else ''}"
        return (
            f"{self.url} gave no usable answer in {tries}; the last: {self.words(str(trouble))}. Nothing is lost: "
            "'evomerge resume' goes on when it answers"
        )


def _wait(attempts: int, after: float | None) -> float:
    """Seconds until the next attempt: doubled each time, or as the server wants, and never the same for two."""
    usual = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 20))
    return random.uniform(0.5, 1.0) * usual if after is None else after + random.uniform(0.0, 0.1 * usual)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, lines: Lines) -> None:
    """Cancel what is in flight, close connections, end the loop."""

    async def close() -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await lines.close()

    if threading.current_thread() is thread:  # garbage was collected there
        return
    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
