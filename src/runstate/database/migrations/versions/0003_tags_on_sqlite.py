"""An index of lists of tags on SQLite, which has none that looks into them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the indexes; PostgreSQL has others."""
    if op.get_bind().dialect.name == "sqlite":
        for table in ("flow_run", "task_run"):
            op.create_index(f"ix_{table}_tags_list", table, ["tags"], sqlite_where=sa.text("tags <> '[]'"))


def downgrade() -> None:
    """Take them away."""
    if op.get_bind().dialect.name == "sqlite":
        for table in ("flow_run", "task_run"):
            op.drop_index(f"ix_{table}_tags_list", table)
