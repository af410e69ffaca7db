"""Schema versions: one module each under ``versions``, applied by Alembic. Imported only when there is one to apply.

To change the schema: change `evomerge.store.schema`, add ``versions/NNNN_what.py`` with ``upgrade`` and ``downgrade``,
append NNNN to ``schema.VERSIONS``. A test compares what the migrations make with what the schema says.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def config(connection: Connection) -> Config:
    """Alembic's configuration for migrating over ``connection``, within its transaction."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = connection
    return settings


def upgrade(connection: Connection, version: str = "head") -> None:
    """Bring the schema up to ``version``."""
    command.upgrade(config(connection), version)


def downgrade(connection: Connection, version: str) -> None:
    """Bring the schema down to ``version``; ``"base"`` drops every table."""
    command.downgrade(config(connection), version)
