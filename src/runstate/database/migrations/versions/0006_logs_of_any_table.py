"""Checkpoints and floors for every log table, identified by the name of the table."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import Timestamp

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Move the checkpoints and the floor of the log of transitions into tables for all logs."""
    op.create_table(
        "log_floor",
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("log", name="pk_log_floor"),
    )
    op.execute("INSERT INTO log_floor SELECT 'transition', floor FROM installation WHERE floor IS NOT NULL")
    op.drop_column("installation", "floor")
    op.create_table(
        "log_checkpoint",
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("at", Timestamp(), nullable=False),
        sa.Column("upper_bound", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("log", "at", name="pk_log_checkpoint"),
    )
    op.create_index("ix_log_checkpoint_log_upper_bound", "log_checkpoint", ["log", "upper_bound"])
    op.execute("INSERT INTO log_checkpoint SELECT 'transition', at, reaches, position FROM transition_mark")
    op.drop_table("transition_mark")


def downgrade() -> None:
    """Move the checkpoints and the floor of the log of transitions back, and drop those of other logs."""
    op.create_table(
        "transition_mark",
        sa.Column("at", Timestamp(), nullable=False),
        sa.Column("reaches", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("at", name="pk_transition_mark"),
    )
    op.create_index("ix_transition_mark_reaches", "transition_mark", ["reaches"])
    op.execute(
        "INSERT INTO transition_mark SELECT at, upper_bound, position FROM log_checkpoint WHERE log = 'transition'"
    )
    op.drop_table("log_checkpoint")
    op.add_column("installation", sa.Column("floor", sa.Text(), nullable=True))
    op.execute("UPDATE installation SET floor = (SELECT position FROM log_floor WHERE log = 'transition')")
    op.drop_table("log_floor")
