"""What Alembic runs: migrate over the connection that it was handed."""

from __future__ import annotations

from alembic import context

from hotswap.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
