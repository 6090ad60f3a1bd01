"""What alembic runs for each command: the steps, in the transaction that `recording.index.migrate` has begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
