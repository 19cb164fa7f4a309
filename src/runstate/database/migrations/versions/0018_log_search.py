"""An index of trigrams for the search in logs, on PostgreSQL servers that have the extension pg_trgm."""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

INDEX = "ix_log_search"
log = logging.getLogger(__name__)


def upgrade() -> None:
    """Apply the change."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    try:
        with connection.begin_nested():
            op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            op.execute(f"CREATE INDEX {INDEX} ON log USING gin ((message || ' ' || logger) gin_trgm_ops)")
    except sa.exc.DBAPIError as error:
        # The search works without it, by reading the lines that the other conditions leave.
        # Not to the standard output, which commands write their answers to.
        log.warning("The search in logs has no index: %s", error.orig)


def downgrade() -> None:
    """Revert the change."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"DROP INDEX IF EXISTS {INDEX}")
