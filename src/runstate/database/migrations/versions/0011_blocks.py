"""Blocks."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0011"
down_revision = "0010"


NOW = datetime(2026, 11, 27, tzinfo=UTC)
PREFIX = UUID("019ac2f3-b800-7000-8000-000000000000").int
"""First of the ids of the types and schemas that come with the server."""
PROTECTED: tuple[tuple[str, str, str, dict[str, Any], list[str], str], ...] = (
    (
        "secret",
        "Secret",
        "A single value, such as a password or a token.",
        {
            "title": "Secret",
            "type": "object",
            "properties": {"value": {"title": "Value", "description": "Any JSON value."}},
            "required": ["value"],
            "secret_fields": ["value"],
            "block_type_slug": "secret",
        },
        [],
        "sha256:cf5656596ef004d7b14338d3286bd9cd1940cf43b37f8801ba21b8d55653e38b",
    ),
    (
        "webhook",
        "Webhook",
        "An address that is called with a request.",
        {
            "title": "Webhook",
            "type": "object",
            "properties": {
                "method": {
                    "title": "Method",
                    "type": "string",
                    "enum": ["GET", "POST", "PUT", "PATCH", "DELETE"],
                    "default": "POST",
                },
                "url": {"title": "URL", "type": "string"},
                "headers": {"title": "Headers", "type": "object"},
                "allow_private_urls": {"title": "Allow private URLs", "type": "boolean", "default": True},
                "verify": {"title": "Verify", "type": "boolean", "default": True},
            },
            "required": ["url"],
            "secret_fields": ["url", "headers.*"],
            "block_type_slug": "webhook",
        },
        [],
        "sha256:8e79823a177617b7bafd742ca11437f91e9f3ea499d333cf18076d6ab2e22725",
    ),
    (
        "local-file-system",
        "Local File System",
        "A folder on the machine of the flow.",
        {
            "title": "Local File System",
            "type": "object",
            "properties": {"basepath": {"title": "Base path", "type": "string"}},
            "block_type_slug": "local-file-system",
        },
        ["get-directory", "put-directory", "read-path", "write-path"],
        "sha256:b54d32214777e4e429fa78bcc952e624c25032b4f961903db44e0cb8edcb3384",
    ),
)
"""Slug, name, description, fields, capabilities and checksum of the types that come with the server."""


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "block_type",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("logo_url", sa.Text(), nullable=True),
        sa.Column("documentation_url", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("code_example", sa.Text(), nullable=True),
        sa.Column("is_protected", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block_type")),
        sa.UniqueConstraint("slug", name=op.f("uq_block_type_slug")),
    )
    op.create_index(op.f("ix_block_type_created"), "block_type", ["created"], unique=False)
    op.create_index(op.f("ix_block_type_name"), "block_type", ["name"], unique=False)
    op.create_table(
        "block_schema",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("block_type_id", sa.Uuid(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("definition", JSON, nullable=False),
        sa.Column("capabilities", JSON, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["block_type_id"], ["block_type.id"], name=op.f("fk_block_schema_block_type_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block_schema")),
        sa.UniqueConstraint(
            "block_type_id", "checksum", "version", name=op.f("uq_block_schema_block_type_id_checksum_version")
        ),
    )
    op.create_index(op.f("ix_block_schema_checksum"), "block_schema", ["checksum"], unique=False)
    op.create_index(op.f("ix_block_schema_created"), "block_schema", ["created"], unique=False)
    op.create_index(op.f("ix_block_schema_version"), "block_schema", ["version"], unique=False)
    op.create_table(
        "block_document",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_anonymous", sa.Boolean(), nullable=False),
        sa.Column("block_type_id", sa.Uuid(), nullable=False),
        sa.Column("block_type_name", sa.Text(), nullable=False),
        sa.Column("block_schema_id", sa.Uuid(), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["block_schema_id"], ["block_schema.id"], name=op.f("fk_block_document_block_schema_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["block_type_id"], ["block_type.id"], name=op.f("fk_block_document_block_type_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block_document")),
        sa.UniqueConstraint("block_type_id", "name", name=op.f("uq_block_document_block_type_id_name")),
    )
    op.create_index(op.f("ix_block_document_block_schema_id"), "block_document", ["block_schema_id"], unique=False)
    op.create_index(op.f("ix_block_document_block_type_name"), "block_document", ["block_type_name"], unique=False)
    op.create_index(op.f("ix_block_document_created"), "block_document", ["created"], unique=False)
    op.create_index(op.f("ix_block_document_name"), "block_document", ["name"], unique=False)
    op.create_index(op.f("ix_block_document_updated"), "block_document", ["updated"], unique=False)
    op.create_table(
        "block_schema_reference",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=False),
        sa.Column("reference_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["block_schema.id"], name=op.f("fk_block_schema_reference_parent_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["reference_id"],
            ["block_schema.id"],
            name=op.f("fk_block_schema_reference_reference_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block_schema_reference")),
    )
    op.create_index(op.f("ix_block_schema_reference_parent_id"), "block_schema_reference", ["parent_id"], unique=False)
    op.create_index(
        op.f("ix_block_schema_reference_reference_id"), "block_schema_reference", ["reference_id"], unique=False
    )
    op.create_table(
        "block_document_reference",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=False),
        sa.Column("reference_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["block_document.id"], name=op.f("fk_block_document_reference_parent_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["reference_id"], ["block_document.id"], name=op.f("fk_block_document_reference_reference_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block_document_reference")),
        sa.UniqueConstraint("parent_id", "name", name=op.f("uq_block_document_reference_parent_id_name")),
    )
    op.create_index(
        op.f("ix_block_document_reference_reference_id"), "block_document_reference", ["reference_id"], unique=False
    )
    _insert_protected()


def _insert_protected() -> None:
    types = sa.table(
        "block_type",
        *(sa.column(name, sa.Uuid()) for name in ("id",)),
        *(sa.column(name, Timestamp()) for name in ("created", "updated")),
        *(sa.column(name, sa.Text()) for name in ("slug", "name", "description")),
        sa.column("is_protected", sa.Boolean()),
    )
    schemas = sa.table(
        "block_schema",
        *(sa.column(name, sa.Uuid()) for name in ("id", "block_type_id")),
        *(sa.column(name, Timestamp()) for name in ("created", "updated")),
        *(sa.column(name, sa.Text()) for name in ("checksum", "version")),
        *(sa.column(name, JSON) for name in ("definition", "capabilities")),
    )
    for number, (slug, name, description, fields, capabilities, checksum) in enumerate(PROTECTED, 1):
        own = {"created": NOW, "updated": NOW}
        type_id = UUID(int=PREFIX | 2 * number)
        about = {"slug": slug, "name": name, "description": description, "is_protected": True}
        op.bulk_insert(types, [{"id": type_id, **own, **about}])
        held = {"definition": fields, "capabilities": capabilities, "checksum": checksum, "version": "non-versioned"}
        op.bulk_insert(schemas, [{"id": UUID(int=PREFIX | 2 * number + 1), "block_type_id": type_id, **own, **held}])


def downgrade() -> None:
    """Revert the change."""
    op.drop_index(op.f("ix_block_document_reference_reference_id"), table_name="block_document_reference")
    op.drop_table("block_document_reference")
    op.drop_index(op.f("ix_block_schema_reference_reference_id"), table_name="block_schema_reference")
    op.drop_index(op.f("ix_block_schema_reference_parent_id"), table_name="block_schema_reference")
    op.drop_table("block_schema_reference")
    op.drop_index(op.f("ix_block_document_updated"), table_name="block_document")
    op.drop_index(op.f("ix_block_document_name"), table_name="block_document")
    op.drop_index(op.f("ix_block_document_created"), table_name="block_document")
    op.drop_index(op.f("ix_block_document_block_type_name"), table_name="block_document")
    op.drop_index(op.f("ix_block_document_block_schema_id"), table_name="block_document")
    op.drop_table("block_document")
    op.drop_index(op.f("ix_block_schema_version"), table_name="block_schema")
    op.drop_index(op.f("ix_block_schema_created"), table_name="block_schema")
    op.drop_index(op.f("ix_block_schema_checksum"), table_name="block_schema")
    op.drop_table("block_schema")
    op.drop_index(op.f("ix_block_type_name"), table_name="block_type")
    op.drop_index(op.f("ix_block_type_created"), table_name="block_type")
    op.drop_table("block_type")
