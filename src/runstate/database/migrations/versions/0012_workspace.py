"""The workspace, with ids of its own."""

from datetime import UTC, datetime
from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from uuid_utils.compat import uuid7

from runstate.database.migrations.types import JSON, Timestamp

revision = "0012"
down_revision = "0011"

KEY = "runstate.workspace"


def upgrade() -> None:
    """Insert the names of the workspace."""
    configuration = sa.table(
        "configuration",
        sa.column("id", sa.Uuid()),
        *(sa.column(name, Timestamp()) for name in ("created", "updated")),
        sa.column("key", sa.Text()),
        sa.column("value", JSON),
    )
    names = {
        "account_handle": "local",
        "account_id": str(uuid4()),
        "account_name": "",
        "description": "",
        "workspace_handle": "default",
        "workspace_id": str(uuid4()),
        "workspace_name": "",
    }
    now = datetime.now(UTC)
    op.bulk_insert(configuration, [{"id": uuid7(), "created": now, "updated": now, "key": KEY, "value": names}])


def downgrade() -> None:
    """Delete the names of the workspace."""
    configuration = sa.table("configuration", sa.column("key", sa.Text()))
    op.execute(sa.delete(configuration).where(configuration.c.key == KEY))
