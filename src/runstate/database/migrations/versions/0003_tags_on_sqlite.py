"""An index on lists of tags for SQLite, which cannot index their items."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the indexes on SQLite; PostgreSQL has GIN indexes."""
    if op.get_bind().dialect.name == "sqlite":
        for table in ("flow_run", "task_run"):
            op.create_index(f"ix_{table}_tags_list", table, ["tags"], sqlite_where=sa.text("tags <> '[]'"))


def downgrade() -> None:
    """Drop the indexes."""
    if op.get_bind().dialect.name == "sqlite":
        for table in ("flow_run", "task_run"):
            op.drop_index(f"ix_{table}_tags_list", table)
