"""How Alembic runs the migrations: on the connection it is handed, in the transaction that is under way."""

from alembic import context

from runstate.rows import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=False,
)
context.run_migrations()
