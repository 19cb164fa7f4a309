"""The position of the evaluator in the log, and the automations there."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "evaluated_automation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("definition", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluated_automation")),
    )
    op.create_table(
        "log_reader",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("clock", Timestamp(), nullable=False),
        sa.Column("rounds", sa.BigInteger(), nullable=False),
        sa.Column("leader", sa.Uuid(), nullable=True),
        sa.Column("leased_until", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_log_reader")),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("log_reader")
    op.drop_table("evaluated_automation")
