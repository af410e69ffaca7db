"""Run by Alembic: apply migrations over the connection it was given."""

from alembic import context

from evomerge.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=schema.VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
