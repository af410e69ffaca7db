"""A pool server as a process: the address, TLS, and an end that lets those inside finish."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import ConfigError, PluginError
from evomerge.plugins import extra_for


@dataclass(frozen=True)
class Address:
    """Where to listen, and with which certificate. Port 0 takes any that is free."""

    host: str = "127.0.0.1"
    port: int = 8750
    certificate: Path | None = None
    key: Path | None = None

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self, tokens: bool) -> None:
        """Refuse to be open to others without tokens.

        Raises:
            ConfigError: it would be, or only one of certificate and key is given.
        """
        if not self.local and not tokens:
            raise ConfigError(
                f"--host {self.host} can be reached by others, so tokens are needed: "
                "'evomerge serve-token NAME --tokens FILE' makes one, and --tokens FILE asks for it"
            )
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("--tls-cert and --tls-key belong together; give both or neither")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise ConfigError(f"there is no file {path}; give a certificate and its key in PEM format")

    @property
    def url(self) -> str:
        """As clients write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"


def listen(address: Address) -> socket.socket:
    """A socket that is bound and listens.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # by which asyncio knows TCP_NODELAY
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address.host, address.port))
        found.listen(2048)
    except (OSError, OverflowError) as error:
        found.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        cure = "another program listens there; choose another --port" if taken else "choose another --host or --port"
        raise ConfigError(f"cannot listen at {address.url}: {error}; {cure}") from error
    return found


def server(application: Any, address: Address, *, grace: int = 30) -> Any:
    """A uvicorn server. On SIGTERM or Ctrl-C it lets requests finish, for ``grace`` seconds at most.

    Raises:
        ConfigError: certificate or key cannot be used.
        PluginError: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise PluginError(f"a pool server cannot run here; {extra_for(error)}") from error
    config = uvicorn.Config(
        application,
        access_log=False,  # the audit log is the one that counts
        log_level="warning",
        lifespan="off",
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=grace,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    try:
        config.load()
    except OSError as error:
        raise ConfigError(f"certificate {address.certificate} and key {address.key} cannot be used: {error}") from error
    return uvicorn.Server(config)
