"""Pools, queues and deployments know which status was told."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add the columns."""
    with op.batch_alter_table("deployment") as batch_op:
        batch_op.add_column(sa.Column("told_status", sa.Text(), nullable=True))
    with op.batch_alter_table("work_pool") as batch_op:
        batch_op.add_column(sa.Column("told_status", sa.Text(), nullable=True))
    with op.batch_alter_table("work_queue") as batch_op:
        batch_op.add_column(sa.Column("told_status", sa.Text(), nullable=True))


def downgrade() -> None:
    """Remove the columns."""
    with op.batch_alter_table("work_queue") as batch_op:
        batch_op.drop_column("told_status")
    with op.batch_alter_table("work_pool") as batch_op:
        batch_op.drop_column("told_status")
    with op.batch_alter_table("deployment") as batch_op:
        batch_op.drop_column("told_status")
