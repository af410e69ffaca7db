"""The pool server's face: three addresses, JSON in and out, tokens, and sizes looked at before anything is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from evomerge.errors import ConfigError
from evomerge.serve.service import RefusedError, Reply, Service, refusal
from evomerge.serve.tokens import ANYONE, Holder, Tokens
from evomerge.wire import dump

BODY_SECONDS = 60.0
"""How long a request may take to arrive."""

_LONGEST_KEY = 200
_CODES = {404: "not_found", 405: "bad_method"}


def application(service: Service, tokens: Tokens | None) -> Starlette:
    """The ASGI application. Without tokens it answers anyone, but only under this machine's own names."""
    front = _Front(service, tokens)
    return Starlette(
        routes=[
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/v1/pool", front.pool, methods=["GET"]),
            Route("/v1/score", front.score, methods=["POST"]),
        ],
        # a page in a browser on this machine must not reach a server without tokens by a name of its own
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])]
        if tokens is None
        else [],
        exception_handlers={HTTPException: _no_such_thing, Exception: _defect},  # type: ignore[dict-item]  # as documented
    )


class _Front:
    """Who asks, and what arrives."""

    def __init__(self, service: Service, tokens: Tokens | None) -> None:
        self._service = service
        self._tokens = tokens

    async def pool(self, request: Request) -> Response:
        async def reply() -> Reply:
            return Reply(200, dump(self._service.offer(self._holder(request))))

        return await _responded(reply)

    async def score(self, request: Request) -> Response:
        async def reply() -> Reply:
            holder = self._holder(request)
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise RefusedError(415, "bad_request", "send application/json")
            key = request.headers.get("idempotency-key")
            if key is not None and len(key) > _LONGEST_KEY:
                raise RefusedError(400, "bad_request", f"an idempotency key has up to {_LONGEST_KEY} characters")
            limit = self._service.offer(holder).limits.body_bytes
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _body(request, limit)
            except TimeoutError:
                raise RefusedError(408, "too_slow", f"the request took longer than {BODY_SECONDS:g} s") from None
            return await self._service.ask(holder, body, key)

        return await _responded(reply)

    def _holder(self, request: Request) -> Holder:
        if self._tokens is None:
            return ANYONE
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            holder = self._tokens.holder(token.strip()) if kind.lower() == "bearer" else None
        except ConfigError:  # the file is being changed, or was spoilt
            raise RefusedError(503, "unavailable", "tokens cannot be looked up at present", after=5) from None
        if holder is None:
            raise RefusedError(401, "unauthorised", "send a valid token as 'Authorization: Bearer TOKEN'")
        return holder


async def _body(request: Request, limit: int) -> bytes:
    """The body, which is given up as soon as it is known to be too large."""
    too_large = RefusedError(413, "too_large", f"the request is larger than {limit} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
    except ClientDisconnect:
        raise RefusedError(400, "bad_request", "the request ended early") from None
    return bytes(body)


async def _responded(reply: Callable[[], Awaitable[Reply]]) -> Response:
    try:
        return _response(await reply())
    except RefusedError as error:
        return _response(error.reply)


def _response(reply: Reply) -> Response:
    headers = {} if reply.retry_after is None else {"retry-after": str(reply.retry_after)}
    if reply.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(reply.body, reply.status, headers, "application/json")


async def _healthz(request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


async def _no_such_thing(request: Request, error: HTTPException) -> Response:
    code = _CODES.get(error.status_code, "bad_request")
    return _response(refusal(error.status_code, code, f"{error.detail}; the documentation lists the addresses"))


async def _defect(request: Request, error: Exception) -> Response:
    """The traceback goes to the server's own log."""
    return _response(refusal(500, "defect", "something is wrong with this server; its log says what"))
