"""Lines to one server, each a connection of its own that is kept and used again: the one module that knows httpx.

httpx's own pool looks at all its connections whenever a request begins or ends, which at 64 in flight costs several
times what the request does; so each line is a client with a single connection, and a free one is taken from the top.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from evomerge.errors import ConfigError, ServiceError
from evomerge.http.secret import Secret

CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Request:
    """What is sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None


@dataclass(frozen=True)
class Reply:
    """An answer as it came; names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Trouble(Exception):
    """An attempt without an answer; the server may have said after how many seconds to come again."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Lines:
    """At most ``most`` connections to the server at ``url``. All is to be called in one event loop.

    Raises:
        ConfigError: httpx is not installed.
    """

    def __init__(self, url: str, most: int, secret: Secret | None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ConfigError('a server needs httpx to be asked: pip install "evomerge[api]"') from error
        self._httpx = httpx
        self._url = url
        self._headers = {} if secret is None else {"authorization": secret.header()}
        self._certificates: Any = httpx.create_ssl_context() if url.startswith("https:") else False  # none is met
        self._places = asyncio.Semaphore(most)
        self._free: list[Any] = []
        self._all: list[Any] = []

    @asynccontextmanager
    async def free(self) -> AsyncIterator[Any]:
        """A line that nobody else uses meanwhile; waits for one."""
        async with self._places:
            line = self._free.pop() if self._free else self._line()
            try:
                yield line
            finally:
                self._free.append(line)

    async def send(self, line: Any, request: Request, timeout: float, largest: int) -> Reply:
        """One attempt, from the first byte to the last within ``timeout`` seconds.

        Raises:
            Trouble: it has no whole answer, or one of more than ``largest`` bytes.
            ServiceError: the server's certificate is not valid.
        """
        try:
            async with (
                asyncio.timeout(timeout),
                line.stream(
                    request.method, self._url + request.path, headers=request.headers, content=request.body
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > largest:
                        raise Trouble(f"the answer is larger than {largest} bytes")
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status_code, headers, bytes(body))
        except TimeoutError:
            raise Trouble(f"no whole answer within {timeout:g} s") from None
        except self._httpx.HTTPError as error:
            if (why := _invalid(error)) is not None:
                raise ServiceError(f"the certificate of {self._url} is not valid: {why}; correct the url") from None
            raise Trouble(f"{type(error).__name__}: {error}".rstrip(": ")) from None

    async def close(self) -> None:
        """Close all connections."""
        for line in self._all:
            await line.aclose()

    def _line(self) -> Any:
        self._all.append(
            self._httpx.AsyncClient(
                headers=self._headers,
                verify=self._certificates,
                timeout=self._httpx.Timeout(None, connect=CONNECT_SECONDS),  # attempts have a limit as a whole
                limits=self._httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=30.0),
                follow_redirects=False,
                trust_env=not loopback(urlsplit(self._url).hostname or ""),  # proxies are for other machines
            )
        )
        return self._all[-1]


def checked(url: str, secret: bool) -> str:
    """The address of a server, without a slash at its end.

    Raises:
        ConfigError: it is none, holds a password, or would carry a ``secret`` unencrypted.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(f"{url!r} is no address; write https://HOST:PORT") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the url holds a name or password, which would be kept with the study; use token_env")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(f"{url!r} is no address of a server; write https://HOST:PORT, without ? or #")
    if secret and parts.scheme == "http" and not loopback(host):
        raise ConfigError(f"{url!r} would carry the token unencrypted; use https, or a tunnel to this machine")
    return url.rstrip("/")


def loopback(host: str) -> bool:
    """Whether it is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _invalid(error: BaseException | None) -> str | None:
    """Why a certificate is not valid, if that is the cause of an error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None
