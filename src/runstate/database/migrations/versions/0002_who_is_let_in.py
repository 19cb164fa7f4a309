"""API keys and CSRF tokens."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import NUMERIC_JSON, Timestamp

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("scopes", NUMERIC_JSON, nullable=False),
        sa.Column("expires", Timestamp(), nullable=True),
        sa.Column("revoked", Timestamp(), nullable=True),
        sa.Column("used", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
        sa.UniqueConstraint("name", name="uq_api_key_name"),
        sa.UniqueConstraint("prefix", name="uq_api_key_prefix"),
    )
    op.create_table(
        "csrf_token",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("expiration", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_csrf_token"),
        sa.UniqueConstraint("client", name="uq_csrf_token_client"),
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("csrf_token")
    op.drop_table("api_key")
