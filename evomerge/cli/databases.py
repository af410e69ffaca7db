"""Which database a command means, and opening it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.errors import ConfigError, StudyNotFoundError

if TYPE_CHECKING:
    from evomerge.settings import StudySettings
    from evomerge.store.port import Store, StudyStore

ENVIRONMENT = "EVOMERGE_DB"

Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        envvar=ENVIRONMENT,
        help="The database: a file, a postgresql:// address, or a study file. Default: the only .db file here.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None, typer.Argument(help="The study. Default: the only one in the database.", show_default=False)
]


def address(db: str | None) -> str:
    """The SQLAlchemy address that ``--db`` stands for.

    Raises:
        ConfigError: there is no such file, or it is not clear which one is meant.
    """
    if db is not None and "://" in db:
        return db
    path = Path(db) if db is not None else _only_one()
    if path.suffix in (".yaml", ".yml"):
        from evomerge import config

        file = config.read(path)
        return address_of(file.settings, file.path)
    if not path.is_file():
        raise ConfigError(f"there is no database {path}; 'evomerge run' makes one")
    return f"sqlite:///{path.absolute()}"


def _only_one() -> Path:
    found = sorted(Path().glob("*.db"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"there is no .db file in {Path().absolute()}; name the database with --db or {ENVIRONMENT}")
    raise ConfigError(f"there are several databases here ({', '.join(map(str, found))}); name one with --db")


def address_of(settings: StudySettings, file: Path) -> str:
    """The address that a study file names; without one, the SQLite file beside it."""
    url = settings.store.url
    if url is None:
        return f"sqlite:///{file.with_suffix('.db')}"
    scheme, _, path = url.partition(":///")
    if "://" not in url or (scheme.startswith("sqlite") and path):
        return f"{scheme if '://' in url else 'sqlite'}:///{file.parent / (path or url)}"
    return url


def folder(url: str) -> Path | None:
    """The folder that an SQLite file is in."""
    return Path(url.removeprefix("sqlite:///")).parent if url.startswith("sqlite:///") else None


def shown(url: str) -> str:
    """The address without its password."""
    from sqlalchemy.engine import make_url

    return url.removeprefix("sqlite:///") if url.startswith("sqlite") else make_url(url).render_as_string()


@contextmanager
def opened(url: str, settings: StudySettings | None = None) -> Iterator[Store]:
    """The database behind an address; ``settings`` say how to write to it."""
    from evomerge.settings import StoreSettings
    from evomerge.store import open_store

    how = settings.store if settings is not None else StoreSettings()
    store = open_store(url, commit_every=how.commit_every, lease_seconds=how.lease_seconds, keep_losses=how.keep_losses)
    with store:
        yield store


def only_name(store: Store, name: str | None) -> str:
    """The study that is meant: ``name``, or the only one there is.

    Raises:
        StudyNotFoundError: there is none, or more than one.
    """
    if name is not None:
        return name
    names = [summary.name for summary in store.studies()]
    if len(names) == 1:
        return names[0]
    if not names:
        raise StudyNotFoundError("there is no study in this database; 'evomerge run FILE' makes one")
    raise StudyNotFoundError(f"there are several studies in this database; name one of: {', '.join(names)}")


@contextmanager
def opened_study(db: str | None, name: str | None) -> Iterator[StudyStore]:
    """One study, for reading."""
    with opened(address(db)) as store:
        yield store.open(only_name(store, name))
