"""Environment of Alembic: migrations run on the given connection, in its transaction."""

from alembic import context

from runstate.database.migrations.rebuilding import keeping_what_holds
from runstate.rows import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    # Alembic assumes that SQLite cannot roll back changes of tables.
    transactional_ddl=True,
    # SQLite cannot alter most parts of a table, so generated migrations copy it.
    render_as_batch=True,
)
with keeping_what_holds(connection):
    context.run_migrations()
