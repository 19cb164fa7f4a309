"""Clients that created and changed deployments, and the time until which schedules are planned."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the columns."""
    with op.batch_alter_table("deployment") as batch_op:
        batch_op.add_column(sa.Column("created_by", JSON, nullable=True))
        batch_op.add_column(sa.Column("updated_by", JSON, nullable=True))
    with op.batch_alter_table("deployment_schedule") as batch_op:
        batch_op.add_column(sa.Column("planned_until", Timestamp(), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    with op.batch_alter_table("deployment_schedule") as batch_op:
        batch_op.drop_column("planned_until")
    with op.batch_alter_table("deployment") as batch_op:
        batch_op.drop_column("updated_by")
        batch_op.drop_column("created_by")
