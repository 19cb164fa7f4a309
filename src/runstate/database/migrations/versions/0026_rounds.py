"""The rounds of the evaluator."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import Timestamp

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "evaluated_round",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("clock", Timestamp(), nullable=False),
        sa.Column("is_complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_evaluated_round")),
    )
    op.create_index(op.f("ix_evaluated_round_created"), "evaluated_round", ["created"], unique=False)


def downgrade() -> None:
    """Drop the table."""
    op.drop_index(op.f("ix_evaluated_round_created"), table_name="evaluated_round")
    op.drop_table("evaluated_round")
