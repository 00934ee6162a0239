"""Alembic's entry: runs the versions on the connection that `shared.db.migrate` hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
