"""Block types, and block schemas with the schemas nested in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.blocks import checksum, secret_fields
from runstate.core.commands import crud
from runstate.core.commands.command import command
from runstate.core.commands.crud import change, columns_of, fresh, insert, insert_or_skip
from runstate.core.context import CommandContext
from runstate.documents.blocks import CreateBlockSchema
from runstate.errors import InvalidInput, NotFound
from runstate.rows import BlockDocument, BlockDocumentReference, BlockSchema, BlockSchemaReference, BlockType
from runstate.rows.documents import create_document, update_document

CreateBlockType = create_document(BlockType)
UpdateBlockType = update_document(BlockType)
create_block_type = crud.create(BlockType, ("slug",))

REFERENCES: Final = "block_schema_references"
PROTECTED: Final = "The block type comes with the server: it and its schemas cannot be changed or deleted."
UNVERSIONED: Final = "non-versioned"


@command(BlockType)
async def update_block_type(context: CommandContext, document: Any) -> BlockType:
    """Update the given fields of a block type that is not protected."""
    async with context.database.write() as transaction:
        connection = transaction.connection
        await _check_type(connection, BlockType.id == document.id, document.id)
        changed = await change(connection, BlockType, {"id": document.id}, columns_of(document), context.clock())
    if changed is None:
        raise NotFound(document.id)
    return changed


async def _check_type(connection: AsyncConnection, which: sa.ColumnElement[bool], id: UUID) -> None:
    """Raise NotFound if the type does not exist, and InvalidInput if it is protected."""
    is_protected = await connection.scalar(sa.select(BlockType.is_protected).where(which))
    if is_protected is None:
        raise NotFound(id)
    if is_protected:
        raise InvalidInput(PROTECTED)


@command(BlockType)
async def delete_block_type(context: CommandContext, block_type_id: UUID) -> None:
    """Delete a block type with its schemas and documents, and with all references to these documents."""
    async with context.database.write() as transaction:
        connection = transaction.connection
        await _check_type(connection, BlockType.id == block_type_id, block_type_id)
        # References have no cascade: deleting a single document that others contain is refused.
        await _dereference(connection, BlockDocument.block_type_id == block_type_id)
        await crud.remove(connection, BlockType, block_type_id, context.clock())


@command(BlockSchema)
async def delete_block_schema(context: CommandContext, block_schema_id: UUID) -> None:
    """Delete a block schema with its documents, and with all references to these documents."""
    async with context.database.write() as transaction:
        connection = transaction.connection
        of = sa.select(BlockSchema.block_type_id).where(BlockSchema.id == block_schema_id)
        await _check_type(connection, BlockType.id == of.scalar_subquery(), block_schema_id)
        await _dereference(connection, BlockDocument.block_schema_id == block_schema_id)
        await crud.remove(connection, BlockSchema, block_schema_id, context.clock())


async def _dereference(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> None:
    documents = sa.select(BlockDocument.id).where(which)
    statement = sa.delete(BlockDocumentReference).where(BlockDocumentReference.reference_id.in_(documents))
    await connection.execute(statement)


class WrittenSchema(NamedTuple):
    """A schema, its checksum, and whether it was created, or would be."""

    row: BlockSchema | None
    checksum: str
    created: bool


@command(BlockSchema)
async def create_block_schema(context: CommandContext, document: CreateBlockSchema) -> WrittenSchema:
    """Create a block schema with the nested ones, or find the one of the type with the checksum and the version.

    Secret fields that are new to an existing schema are added to it.
    """
    found = checksum(document.fields_)
    async with context.database.write() as transaction:
        connection = transaction.connection
        if await connection.scalar(sa.select(BlockType.id).where(BlockType.id == document.block_type_id)) is None:
            raise NotFound(document.block_type_id)
        same = BlockSchema.version == document.version
        existing = await _newest(connection, document.block_type_id, found, same)
        if document.dry_run:
            return WrittenSchema(existing, found, created=existing is None)
        if existing is not None:
            extended = await _with_secrets(context, connection, existing, document.fields_)
            return WrittenSchema(extended, found, created=False)
        columns = {
            "block_type_id": document.block_type_id,
            "checksum": found,
            "definition": document.fields_,
            "capabilities": list(dict.fromkeys(document.capabilities)),
            "version": document.version,
        }
        made = await insert_or_skip(connection, BlockSchema, fresh(context) | columns)
        if made is None:
            row = await _newest(connection, document.block_type_id, found, same)
            row = row and await _with_secrets(context, connection, row, document.fields_)
            return WrittenSchema(row, found, created=False)
        await _add_references(context, connection, made, document.fields_.get("definitions"))
        return WrittenSchema(made, found, created=True)


async def _newest(
    connection: AsyncConnection, type_id: UUID, checksum: str, *more: sa.ColumnElement[bool]
) -> BlockSchema | None:
    schemas = sa.select(*BlockSchema.__table__.columns).where(BlockSchema.block_type_id == type_id, *more)
    newest = schemas.where(BlockSchema.checksum == checksum).order_by(BlockSchema.id.desc()).limit(1)
    found = (await connection.execute(newest)).mappings().one_or_none()
    return None if found is None else BlockSchema.of(found)  # type: ignore[arg-type]


async def _with_secrets(
    context: CommandContext, connection: AsyncConnection, row: BlockSchema, fields: Mapping[str, Any]
) -> BlockSchema:
    if set(secret_fields(fields)) <= set(secret_fields(row.definition)):
        return row
    # Read under a lock, so that two clients that add different paths both succeed.
    same = BlockSchema.id == row.id
    definition = await connection.scalar(sa.select(BlockSchema.definition).where(same).with_for_update())
    known = secret_fields(definition or {})
    paths = list(dict.fromkeys([*known, *secret_fields(fields)]))
    columns = {"definition": {**row.definition, "secret_fields": paths}}
    return await change(connection, BlockSchema, {"id": row.id}, columns, context.clock()) or row


async def _add_references(
    context: CommandContext, connection: AsyncConnection, parent: BlockSchema, definitions: Any
) -> None:
    """Insert the references of a new schema. Nested schemas that do not exist are created from the definitions."""
    references = parent.definition.get(REFERENCES) or {}
    if not isinstance(references, dict):
        raise InvalidInput(f"`{REFERENCES}` must be an object.", ["fields"])
    for name, wanted in references.items():
        for each in wanted if isinstance(wanted, list) else [wanted]:
            nested = await _nested(context, connection, each, definitions)
            columns = {"name": name, "parent_id": parent.id, "reference_id": nested.id}
            await insert(connection, BlockSchemaReference, fresh(context) | columns)


async def _nested(context: CommandContext, connection: AsyncConnection, wanted: Any, definitions: Any) -> BlockSchema:
    slug, found = (wanted.get(key) if isinstance(wanted, dict) else None for key in (SLUG, CHECKSUM))
    if not isinstance(slug, str) or not isinstance(found, str):
        raise InvalidInput(f"A block schema reference needs `{SLUG}` and `{CHECKSUM}`.", ["fields"])
    type_id = await connection.scalar(sa.select(BlockType.id).where(BlockType.slug == slug))
    if type_id is None:
        raise InvalidInput(f"No block type has the slug `{slug}`.", ["fields"])
    existing = await _newest(connection, type_id, found)
    if existing is not None:
        return existing
    definition = _definition_of(slug, definitions)
    if definition is None:
        raise InvalidInput(f"No schema and no definition of `{slug}` has the checksum {found}.", ["fields"])
    columns = {
        "block_type_id": type_id,
        "checksum": found,
        "definition": definition,
        "capabilities": [],
        "version": UNVERSIONED,
    }
    made = await insert(connection, BlockSchema, fresh(context) | columns)
    await _add_references(context, connection, made, definitions)
    return made


SLUG: Final = "block_type_slug"
CHECKSUM: Final = "block_schema_checksum"


def _definition_of(slug: str, definitions: Any) -> dict[str, Any] | None:
    candidates = definitions.values() if isinstance(definitions, dict) else ()
    return next((each for each in candidates if isinstance(each, dict) and each.get(SLUG) == slug), None)
