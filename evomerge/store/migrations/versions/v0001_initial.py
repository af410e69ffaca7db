"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TABLES = "studies leases candidates parents scores journal populations snapshots events artifacts"


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"evomerge_{table}_pkey")


def _int(name: str, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=null, autoincrement=False)


def _float(name: str, null: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=null)


def _text(name: str, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


def upgrade() -> None:
    """Create every table."""
    _create_study_tables()
    _create_candidate_tables()
    _create_journal_tables()
    _create_log_tables()


def downgrade() -> None:
    """Drop every table."""
    for table in reversed(TABLES.split()):
        op.drop_table(f"evomerge_{table}")


def _create_study_tables() -> None:
    op.create_table(
        "evomerge_studies",
        sa.Column("id", sa.Integer, primary_key=True),
        *(_text(name) for name in ("name", "config", "settings", "seed", "objective", "direction", "versions", "pool")),
        _float("created"),
        _float("updated"),
        _text("status"),
        _int("final", null=True),
        *(_int(name) for name in ("turns", "asked", "told", "failed")),
        _float("best", null=True),
        _int("best_number", null=True),
        _int("events"),
        sa.UniqueConstraint("name", name="evomerge_studies_name_key"),
    )
    op.create_table(
        "evomerge_leases",
        _int("study"),
        _text("owner"),
        _text("host"),
        _int("pid"),
        _text("birth"),
        *(_float(name) for name in ("since", "heartbeat", "expires")),
        _key("leases", "study"),
        sqlite_with_rowid=False,
    )


def _create_candidate_tables() -> None:
    op.create_table(
        "evomerge_candidates",
        _int("study"),
        _int("number"),
        sa.Column("digest", sa.String(32), nullable=False),
        _int("generation"),
        _text("origin"),
        _text("recipe"),
        _key("candidates", "study", "number"),
        sqlite_with_rowid=False,
    )
    op.create_index("evomerge_candidates_digest", "evomerge_candidates", ["study", "digest"])
    op.create_table(
        "evomerge_parents",
        *(_int(name) for name in ("study", "child", "place", "parent")),
        _key("parents", "study", "child", "place"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evomerge_scores",
        _int("study"),
        sa.Column("split", sa.String(16), nullable=False),
        _int("number"),
        _float("value", null=True),
        *(_text(name, null=True) for name in ("objectives", "failure", "notes")),
        _float("seconds"),
        _int("attempts"),
        _text("worker"),
        _text("items_form", null=True),
        _text("losses_form", null=True),
        sa.Column("items", sa.LargeBinary, nullable=True),
        sa.Column("losses", sa.LargeBinary, nullable=True),
        _key("scores", "study", "split", "number"),
    )


def _create_journal_tables() -> None:
    op.create_table(
        "evomerge_journal",
        _int("study"),
        _int("seq"),
        _text("told"),
        _text("asked"),
        _key("journal", "study", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evomerge_populations",
        *(_int(name) for name in ("study", "turn", "place", "slot")),
        _int("number", null=True),
        _key("populations", "study", "turn", "place"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evomerge_snapshots",
        _int("study"),
        _int("seq"),
        _text("digest"),
        _text("state", null=True),
        _key("snapshots", "study", "seq"),
    )


def _create_log_tables() -> None:
    op.create_table(
        "evomerge_events",
        _int("study"),
        _int("place"),
        _float("at"),
        *(_text(name) for name in ("level", "kind", "text")),
        _int("number", null=True),
        _key("events", "study", "place"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evomerge_artifacts",
        _int("study"),
        *(_text(name) for name in ("name", "kind", "address", "digest")),
        _float("created"),
        _key("artifacts", "study", "name"),
        sqlite_with_rowid=False,
    )
