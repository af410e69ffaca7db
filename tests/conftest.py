"""What every test may use: a real PostgreSQL server of our own."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

pytest.register_assert_rewrite("evomerge.testing")

CURE = (
    "install the server (Debian: apt-get install postgresql; macOS: brew install postgresql) or set "
    "EVOMERGE_TEST_POSTGRES=postgresql://user@host/db to one whose user may create databases"
)


class PostgresServer:
    """A server in a temporary directory, reachable only through a socket in there. PostgreSQL refuses to be root."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._home = Path(tempfile.mkdtemp(prefix="evomerge-pg-"))
        self._log = (self._home / "log").open("w+")
        self._as: dict[str, object] = {"cwd": self._home, "stdout": self._log, "stderr": self._log}
        if os.geteuid() == 0:
            self._as |= {"user": "nobody", "extra_groups": []}
            shutil.chown(self._home, "nobody")
        self._process: subprocess.Popen[bytes] | None = None
        cluster = ["-D", "data", "-U", "evomerge", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([programs / "initdb", *cluster], check=True, **self._as)  # type: ignore[call-overload]
        self.start()

    def start(self) -> None:
        """Start, and wait until the server answers."""
        options = ["-D", "data", "-k", str(self._home), "-c", "listen_addresses=", "-c", "fsync=off"]
        guard = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []  # ends with us, however we end
        self._process = subprocess.Popen([*guard, self._programs / "postgres", *options], **self._as)  # type: ignore[call-overload]
        deadline = time.monotonic() + 60
        while subprocess.run([self._programs / "pg_isready", "-q", "-h", self._home], check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the PostgreSQL server does not start:\n{(self._home / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once, as a crash would, and wait for it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=60)
            self._process = None

    def close(self) -> None:
        """Stop, and leave nothing behind. Safe to call twice."""
        self.stop()
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def url(self, database: str) -> str:
        """The address of a database on this server."""
        return f"postgresql://evomerge@/{database}?host={self._home}"


def _unavailable(reason: str) -> None:
    """Skip on a laptop; in CI a missing server is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; {CURE}")
    pytest.skip(f"{reason}; {CURE}")


def _programs() -> Path | None:
    """Where PostgreSQL's server programs are; Debian keeps them off PATH."""
    found = shutil.which("pg_ctl")
    installed = [Path(found).resolve().parent] if found else []
    installed += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in installed if (folder / "initdb").exists()), None)


def _own_server() -> Iterator[PostgresServer]:
    programs = _programs()
    if programs is None:
        _unavailable("there is no PostgreSQL server")
        return
    server = PostgresServer(programs)
    atexit.register(server.close)
    try:
        yield server
    finally:
        server.close()
        atexit.unregister(server.close)


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A server for one test alone, to be stopped and started at will; its database is ``postgres``."""
    yield from _own_server()


@pytest.fixture(scope="session")
def _postgres_address() -> Iterator[str]:
    """The address of a database from which others can be created."""
    given = os.environ.get("EVOMERGE_TEST_POSTGRES")
    if given:
        yield given
        return
    for server in _own_server():
        yield server.url("postgres")


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a fresh, empty database on a real PostgreSQL server."""
    psycopg = pytest.importorskip("psycopg") if not os.environ.get("CI") else __import__("psycopg")
    address = request.getfixturevalue("_postgres_address")
    name = f"evomerge_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield make_url(address).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
