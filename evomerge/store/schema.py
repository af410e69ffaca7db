"""The tables. All names begin with ``evomerge_``, so that a database may be shared (with Optuna's dashboard, say).

Every hot table has a natural key, which is what makes writes repeatable. There are no foreign keys: rows are written
only through one driver that holds the lease, and checking them would cost as much as writing them. A change here needs
a migration (`evomerge.store.migrations`); a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSIONS = ("0001", "0002")
"""Every schema version there ever was, oldest first; the last one is this module's."""

VERSION_TABLE = "evomerge_alembic_version"

metadata = MetaData()


def _table(
    name: str, *columns: Column[Any], key: tuple[str, ...], rowid: bool = False, extra: tuple[Any, ...] = ()
) -> Table:
    """A table with a natural key. ``rowid=False``: SQLite keeps small rows in the key's own tree (WITHOUT ROWID)."""
    constraint = PrimaryKeyConstraint(*key, name=f"evomerge_{name}_pkey")
    return Table(f"evomerge_{name}", metadata, *columns, constraint, *extra, sqlite_with_rowid=rowid)


def _int(name: str, null: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=null, autoincrement=False)


def _float(name: str, null: bool = False) -> Column[Any]:
    return Column(name, Double, nullable=null)


def _text(name: str, null: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=null)


studies = Table(
    "evomerge_studies",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("name"),
    _text("config"),
    _text("settings"),  # JSON, as are versions and pool
    _text("seed"),  # decimal: any size
    _text("objective"),
    _text("direction"),
    _text("versions"),
    _text("pool"),
    _float("created"),
    _float("updated"),
    _text("status"),
    _int("final", null=True),
    _int("turns"),
    _int("asked"),
    _int("told"),
    _int("failed"),
    _float("best", null=True),
    _int("best_number", null=True),
    _int("events"),
    UniqueConstraint("name", name="evomerge_studies_name_key"),
)

leases = _table(
    "leases",
    _int("study"),
    _text("owner"),
    _text("host"),
    _int("pid"),
    _text("birth"),
    _float("since"),
    _float("heartbeat"),
    _float("expires"),
    key=("study",),
)

candidates = _table(
    "candidates",
    _int("study"),
    _int("number"),
    Column("digest", String(32), nullable=False),
    _int("generation"),
    _text("origin"),
    _text("recipe"),  # the codec's exact text
    key=("study", "number"),
    extra=(Index("evomerge_candidates_digest", "study", "digest"),),
)

parents = _table(
    "parents", _int("study"), _int("child"), _int("place"), _int("parent"), key=("study", "child", "place")
)

scores = _table(
    "scores",
    _int("study"),
    Column("split", String(16), nullable=False),
    _int("number"),
    _float("value", null=True),  # the study's main objective, for queries by hand
    _text("objectives", null=True),  # JSON: [[name, value], ...]; absent when the evaluation failed
    _text("failure", null=True),  # JSON text
    _text("notes", null=True),  # JSON: [[key, text], ...]
    _float("seconds"),
    _int("attempts"),
    _text("worker"),
    _text("items_form", null=True),  # dtype and shape of the packed numbers: "|b1 1437"
    _text("losses_form", null=True),
    Column("items", LargeBinary, nullable=True),  # the large columns last, so that reading the others skips them
    Column("losses", LargeBinary, nullable=True),
    key=("study", "split", "number"),
    rowid=True,
)

requests = _table(  # of the candidates that are not simply evaluated once on all items
    "requests", _int("study"), _int("number"), _text("request"), key=("study", "number")
)

slopes = _table(
    "slopes",
    _int("study"),
    _int("number"),
    _text("form"),  # dtype and shape, as of items
    Column("packed", LargeBinary, nullable=False),
    key=("study", "number"),
    rowid=True,
)

journal = _table("journal", _int("study"), _int("seq"), _text("told"), _text("asked"), key=("study", "seq"))

populations = _table(
    "populations",
    _int("study"),
    _int("turn"),
    _int("place"),
    _int("slot"),
    _int("number", null=True),
    key=("study", "turn", "place"),
)

snapshots = _table(
    "snapshots",
    _int("study"),
    _int("seq"),
    _text("digest"),
    _text("state", null=True),
    key=("study", "seq"),
    rowid=True,
)

events = _table(
    "events",
    _int("study"),
    _int("place"),
    _float("at"),
    _text("level"),
    _text("kind"),
    _text("text"),  # JSON text
    _int("number", null=True),
    key=("study", "place"),
)

artifacts = _table(
    "artifacts",
    _int("study"),
    _text("name"),
    _text("kind"),
    _text("address"),
    _text("digest"),
    _float("created"),
    key=("study", "name"),
)
