"""Evaluations of some items, repeated ones, and slopes of the loss."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables; studies that were there have nothing in them."""
    op.create_table(
        "evomerge_requests",
        sa.Column("study", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("study", "number", name="evomerge_requests_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evomerge_slopes",
        sa.Column("study", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("packed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("study", "number", name="evomerge_slopes_pkey"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("evomerge_slopes")
    op.drop_table("evomerge_requests")
