"""Variables, indexes on the tags of flows and deployments, and limits that deployments own."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0005"
down_revision = "0004"

TAGGED = ("deployment", "flow", "variable")
IS_CLIENTS = sa.text("deployment_id IS NULL")


def upgrade() -> None:
    """Create the table and the indexes. The limit that a deployment refers to becomes its own."""
    op.create_table(
        "variable",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", JSON, nullable=True),
        sa.Column("tags", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_variable"),
        sa.UniqueConstraint("name", name="uq_variable_name"),
    )
    op.create_index("ix_variable_created", "variable", ["created"])
    op.create_index("ix_variable_updated", "variable", ["updated"])
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in TAGGED:
        if is_sqlite:
            op.create_index(f"ix_{table}_tags_list", table, ["tags"], sqlite_where=sa.text("tags <> '[]'"))
        else:
            op.create_index(f"ix_{table}_tags", table, ["tags"], postgresql_using="gin")
    with op.batch_alter_table("concurrency_limit") as batch:
        batch.add_column(sa.Column("deployment_id", sa.Uuid(), nullable=True))
        batch.drop_constraint("uq_concurrency_limit_name", type_="unique")
        batch.create_foreign_key(
            "fk_concurrency_limit_deployment_id", "deployment", ["deployment_id"], ["id"], ondelete="CASCADE"
        )
    op.execute(
        "UPDATE concurrency_limit SET deployment_id = "
        "(SELECT id FROM deployment WHERE deployment.concurrency_limit_id = concurrency_limit.id)"
    )
    op.create_index("ix_concurrency_limit_deployment_id", "concurrency_limit", ["deployment_id"], unique=True)
    op.create_index(
        "uq_concurrency_limit_name",
        "concurrency_limit",
        ["name"],
        unique=True,
        postgresql_where=IS_CLIENTS,
        sqlite_where=IS_CLIENTS,
    )


def downgrade() -> None:
    """Drop the table, indexes and ownership. The names of all limits are unique again."""
    op.drop_index("uq_concurrency_limit_name", "concurrency_limit")
    op.drop_index("ix_concurrency_limit_deployment_id", "concurrency_limit")
    with op.batch_alter_table("concurrency_limit") as batch:
        batch.drop_constraint("fk_concurrency_limit_deployment_id", type_="foreignkey")
        batch.drop_column("deployment_id")
        batch.create_unique_constraint("uq_concurrency_limit_name", ["name"])
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in ("deployment", "flow"):
        op.drop_index(f"ix_{table}_tags_list" if is_sqlite else f"ix_{table}_tags", table)
    op.drop_table("variable")
