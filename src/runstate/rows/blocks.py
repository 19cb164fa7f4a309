"""Blocks: their types, schemas and documents, and the references between them."""

from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.base import DashSlug, LongText, Name
from runstate.rows.base import CREATE_ONLY, JSON, PRIVATE, READ_ONLY, Row, reverse

FORBIDDEN = set("/%&<>")
RESERVED = "runstate"


def type_name(text: str) -> str:
    """Return the name of a block type. Raise ValueError if it has a forbidden character or is reserved."""
    if FORBIDDEN.intersection(text):
        raise ValueError("the name must not contain any of / % & < >")
    if text.lower().startswith(RESERVED):
        raise ValueError(f"names that begin with `{RESERVED}` are reserved")
    return text


TypeName = Annotated[Name, AfterValidator(type_name)]


class BlockType(Row):
    """A kind of block: something that is configured once and used by many flows."""

    __tablename__ = "block_type"
    __announced__ = True
    __order__, __indexed__ = ("name",), ("name", "created")

    slug: Mapped[DashSlug] = mapped_column(
        unique=True, info=CREATE_ONLY, doc="Unique name for programs: a-z, 0-9, `-`; 1 to 255 characters."
    )
    name: Mapped[TypeName] = mapped_column(
        info=CREATE_ONLY, doc="Name for people, without `/`, `%`, `&`, `<`, `>`. It does not begin with `runstate`."
    )
    logo_url: Mapped[LongText | None] = mapped_column(doc="Address of the logo.")
    documentation_url: Mapped[LongText | None] = mapped_column(doc="Address of the documentation.")
    description: Mapped[LongText | None] = mapped_column(doc="Description for people, as it was given.")
    code_example: Mapped[LongText | None] = mapped_column(doc="Example of its use in code, as it was given.")
    is_protected: Mapped[bool] = mapped_column(
        default=False, info=READ_ONLY, doc="True if it comes with the server: it cannot be changed or deleted."
    )


class BlockSchema(Row):
    """The structure of the data of blocks. It never changes: other fields are another schema."""

    __tablename__ = "block_schema"
    __indexed__ = ("created", "version", "checksum")

    block_type_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(BlockType.id, ondelete="CASCADE"), info=READ_ONLY, doc="Id of the type."
    )
    checksum: Mapped[str] = mapped_column(
        info=READ_ONLY,
        doc="`sha256:` and 64 hexadecimal digits, computed from the fields; unique with type and version.",
    )
    definition: Mapped[dict[str, Any]] = mapped_column(JSON, info=PRIVATE, doc="The fields as they were given.")
    capabilities: Mapped[list[str]] = mapped_column(
        JSON, info=READ_ONLY, doc="Abilities of its blocks, such as `write-path`."
    )
    version: Mapped[str] = mapped_column(info=READ_ONLY, doc="Version for people; `non-versioned` by default.")

    block_type: Mapped[BlockType] = relationship(
        lazy="raise", info=reverse("schemas", "The schemas of the type; newest first by default."), doc="The type."
    )

    __table_args__ = (sa.UniqueConstraint("block_type_id", "checksum", "version"),)


class BlockSchemaReference(Row):
    """A field of a block schema that holds a block of another schema."""

    __tablename__ = "block_schema_reference"

    name: Mapped[str] = mapped_column(info=READ_ONLY, doc="Name of the field.")
    parent_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(BlockSchema.id, ondelete="CASCADE"), index=True, info=READ_ONLY, doc="Id of the schema."
    )
    reference_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(BlockSchema.id, ondelete="CASCADE"), index=True, info=READ_ONLY, doc="Id of the nested schema."
    )

    parent: Mapped[BlockSchema] = relationship(
        lazy="raise",
        foreign_keys=[parent_id],
        doc="The schema that has the field.",
    )
    reference: Mapped[BlockSchema] = relationship(
        lazy="raise", foreign_keys=[reference_id], doc="The schema of the nested block."
    )


class BlockDocument(Row):
    """A configured block. Its data is stored encrypted; answers have `********` in place of secret values."""

    __tablename__ = "block_document"
    __announced__ = True
    __order__, __indexed__ = ("name",), ("name", "block_type_name", "created", "updated")

    name: Mapped[DashSlug] = mapped_column(info=READ_ONLY, doc="Name, unique in the type: a-z, 0-9, `-`.")
    is_anonymous: Mapped[bool] = mapped_column(info=READ_ONLY, doc="True if a program created it for itself.")
    block_type_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(BlockType.id, ondelete="CASCADE"), info=READ_ONLY, doc="Id of the type."
    )
    block_type_name: Mapped[str] = mapped_column(info=READ_ONLY, doc="Name of the type.")
    block_schema_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(BlockSchema.id, ondelete="CASCADE"), index=True, info=READ_ONLY, doc="Id of the schema."
    )
    ciphertext: Mapped[str] = mapped_column(info=PRIVATE, doc="The data without nested blocks, encrypted.")

    block_type: Mapped[BlockType] = relationship(
        lazy="raise", info=reverse("documents", "The documents of the type; by name by default."), doc="The type."
    )
    block_schema: Mapped[BlockSchema] = relationship(
        lazy="raise", info=reverse("documents", "The documents of the schema."), doc="The schema of the data."
    )

    __table_args__ = (sa.UniqueConstraint("block_type_id", "name"),)


class BlockDocumentReference(Row):
    """A field of a block document that holds another document. References form no cycle."""

    __tablename__ = "block_document_reference"

    name: Mapped[str] = mapped_column(info=READ_ONLY, doc="Name of the field.")
    parent_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(BlockDocument.id, ondelete="CASCADE"), info=READ_ONLY, doc="Id of the document with the field."
    )
    reference_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(BlockDocument.id), index=True, info=READ_ONLY, doc="Id of the nested document."
    )

    parent: Mapped[BlockDocument] = relationship(
        lazy="raise", foreign_keys=[parent_id], doc="The document with the field."
    )
    reference: Mapped[BlockDocument] = relationship(
        lazy="raise", foreign_keys=[reference_id], doc="The nested document."
    )

    __table_args__ = (sa.UniqueConstraint("parent_id", "name"),)
