"""Block documents: encrypted data, and references to nested documents."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.blocks import Data, hidden, restored, secret_fields, split
from runstate.core.commands.command import command
from runstate.core.commands.crud import change, fresh, insert, insert_or_skip, remove
from runstate.core.context import CommandContext
from runstate.core.keyring import Keyring
from runstate.core.telling import Told, resource, tell
from runstate.database.dialects import among
from runstate.database.driver import fetch
from runstate.documents.base import Document
from runstate.documents.blocks import CreateBlockDocument, UpdateBlockDocument
from runstate.documents.events import PREFIX
from runstate.errors import Forbidden, InUse, InvalidInput, LimitExceeded, NameTaken, NoSecretKey, NotFound
from runstate.rows import BlockDocument, BlockDocumentReference, BlockSchema, BlockType, Configuration

MOST_USERS: Final = 100
MOST_NESTED: Final = 200
"""Largest number of places in which a document and those nested in it appear: they can double at each level."""
STORAGE: Final = "runstate.default-result-storage"
WRITES: Final = "write-path"
REVEALED: Final = f"{PREFIX}block-document.revealed"


class SetDefaultResultStorage(Document):
    """The default storage of results."""

    block_document_id: UUID | None = Field(
        default=None,
        description=f"Id of a block document whose schema has the capability `{WRITES}`; null: none.",
    )


class Schema(NamedTuple):
    """The part of a schema that its documents need."""

    id: UUID
    type_id: UUID
    type_name: str
    definition: dict[str, Any]
    capabilities: list[str]


def about(document_id: UUID) -> str:
    """Return what an encrypted text is bound to: it cannot be moved to another document."""
    return f"block_document.ciphertext {document_id}"


def encrypted(keyring: Keyring, data: Data, document_id: UUID) -> str:
    """Return data as they are stored. Raise InvalidInput if the server has no key."""
    try:
        # The text is bound to the id: copied to another document, it cannot be decrypted.
        return keyring.encrypt(data, about(document_id))
    except NoSecretKey:
        message = "The server has no key to encrypt blocks: set RUNSTATE_SECRET_KEYS_FILE or RUNSTATE_SECRET_KEYS."
        raise InvalidInput(message, ["data"]) from None


@command(BlockDocument)
async def create_block_document(context: CommandContext, document: CreateBlockDocument) -> BlockDocument | None:
    """Create a block document; None after a dry run."""
    if document.name is None and not document.is_anonymous:
        raise InvalidInput("Only anonymous documents may omit the name.", ["name"])
    plain, references = _split(document.data)
    if document.validate_:
        # Before the transaction, which would keep other writers waiting on SQLite. Schemas never change.
        async with context.database.read() as reading:
            schema = await _schema(reading, document.block_schema_id)
        await _validate(context, plain, references, schema)
    async with context.database.write() as transaction:
        connection = transaction.connection
        schema = await _schema(connection, document.block_schema_id)
        # The id is needed before the insert, because the text is bound to it.
        own = fresh(context)
        columns = {
            # Names are unique within a type, also those of anonymous documents.
            "name": document.name or f"anonymous-{uuid4()}",
            "is_anonymous": document.is_anonymous,
            "block_type_id": schema.type_id,
            "block_type_name": schema.type_name,
            "block_schema_id": schema.id,
            "ciphertext": encrypted(context.keyring, plain, own["id"]),
        }
        nested = await _existing(connection, references)
        # After all checks: a dry run raises what the creation would raise.
        if document.dry_run:
            return None
        made = await insert_or_skip(connection, BlockDocument, own | columns)
        if made is None:
            raise await _name_taken(connection, schema.type_id, columns["name"])
        await _refer(context, connection, made.id, nested)
    return made


async def _validate(context: CommandContext, plain: Data, nested: Collection[str], schema: Schema) -> None:
    """Raise InvalidInput if data do not conform to a schema. Nested documents were checked by their own schemas."""
    fields = dict(schema.definition)
    for part in ("properties", "definitions"):
        if isinstance(known := fields.get(part), dict):
            fields[part] = {name: each for name, each in known.items() if name not in nested}
    if isinstance(required := fields.get("required"), list):
        fields["required"] = [name for name in required if name not in nested]
    # Messages of the validator quote no values, which may be secrets.
    await context.json_schemas.validate(plain, fields, ("data",))


def _split(data: Any) -> tuple[Data, dict[str, str]]:
    try:
        return split(data.value)
    except ValueError as error:
        raise InvalidInput(str(error), ["data"]) from None


async def _schema(connection: AsyncConnection, schema_id: UUID) -> Schema:
    columns = (BlockSchema.id, BlockType.id, BlockType.name, BlockSchema.definition, BlockSchema.capabilities)
    statement = sa.select(*columns).join(BlockType, BlockType.id == BlockSchema.block_type_id)
    found = await fetch(connection, statement.where(BlockSchema.id == schema_id))
    if not found:
        raise NotFound(schema_id)
    return Schema(*found[0])


async def _name_taken(connection: AsyncConnection, type_id: UUID, name: Any) -> Exception:
    same = sa.select(BlockDocument.id).where(BlockDocument.block_type_id == type_id, BlockDocument.name == name)
    taken = await connection.scalar(same)
    return NameTaken(taken, ["name"]) if taken else NotFound(message="The document was deleted meanwhile.")


async def _existing(connection: AsyncConnection, references: Mapping[str, str]) -> dict[str, UUID]:
    """Return the ids of nested documents, locked. Raise InvalidInput for a malformed or unknown one."""
    ids = {}
    for name, text in references.items():
        try:
            ids[name] = UUID(text)
        except ValueError:
            raise InvalidInput(f"The id of the document in `{name}` is malformed.", ["data", name]) from None
    documents = sa.select(BlockDocument.id).where(among(BlockDocument.id, sorted(set(ids.values()))))
    # Locked in order of ids, so that two writers that nest each other's documents cannot deadlock.
    found = set((await connection.execute(documents.order_by(BlockDocument.id).with_for_update())).scalars())
    for name, each in ids.items():
        if each not in found:
            raise InvalidInput(f"No block document has the id in `{name}`.", ["data", name])
    return ids


async def _refer(
    context: CommandContext, connection: AsyncConnection, parent: UUID, nested: Mapping[str, UUID]
) -> None:
    for name, each in nested.items():
        columns = {"name": name, "parent_id": parent, "reference_id": each}
        await insert(connection, BlockDocumentReference, fresh(context) | columns)


@command(BlockDocument)
async def update_block_document(
    context: CommandContext, document: UpdateBlockDocument, *, may_reveal: bool = True
) -> BlockDocument:
    """Update a block document. Masks in place of secrets leave these unchanged.

    Raise Forbidden if another schema would show kept secrets, unless `may_reveal`.
    """
    async with context.database.write() as transaction:
        connection = transaction.connection
        locked = sa.select(*BlockDocument.__table__.columns).where(BlockDocument.id == document.id).with_for_update()
        found = (await connection.execute(locked)).mappings().one_or_none()
        if found is None:
            raise NotFound(document.id)
        old = BlockDocument.of(found)  # type: ignore[arg-type]
        schema = await _schema(connection, old.block_schema_id)
        columns: dict[str, Any] = {}
        if document.block_schema_id and document.block_schema_id != schema.id:
            before, schema = schema, await _other_schema(connection, schema, document.block_schema_id)
            columns["block_schema_id"] = schema.id
            # Another schema decides which fields are secret, so a change of it could show what was hidden.
            if not may_reveal:
                _check_revealed(_kept(context.keyring, document, old), before, schema)
        if document.data is not None:
            columns["ciphertext"] = await _changed(context, connection, document, old, schema)
        return await change(connection, BlockDocument, {"id": old.id}, columns, context.clock()) or old


async def _other_schema(connection: AsyncConnection, schema: Schema, other: UUID) -> Schema:
    new = await _schema(connection, other)
    if new.type_id != schema.type_id:
        raise InvalidInput("The schema is of another block type.", ["blockSchemaId"])
    return new


def _kept(keyring: Keyring, document: UpdateBlockDocument, old: BlockDocument) -> Data:
    """Return the stored data that an update keeps. Where it gives masks, the new schema hides the values."""
    stored: Data = keyring.decrypt(old.ciphertext, about(old.id))
    given: Any = document.data
    if given is None:
        return stored
    return {key: value for key, value in stored.items() if document.merge and key not in given.value}


def _check_revealed(kept: Data, before: Schema, after: Schema) -> None:
    """Raise Forbidden if a schema shows data that the schema before hides."""
    shown = hidden(kept, secret_fields(after.definition))
    if hidden(shown, secret_fields(before.definition)) != shown:
        raise Forbidden(
            "The schema would show secrets: give new values for them, or use a key with the scope `secrets`."
        )


async def _changed(
    context: CommandContext,
    connection: AsyncConnection,
    document: UpdateBlockDocument,
    old: BlockDocument,
    schema: Schema,
) -> str:
    """Write the references of changed data, and return the rest encrypted."""
    new, references = _split(document.data)
    stored: Data = context.keyring.decrypt(old.ciphertext, about(old.id))
    # Clients send back what they have read, with masks in place of secrets.
    new = restored(new, stored, secret_fields(schema.definition))
    nested = await _existing(connection, references)
    mine = BlockDocumentReference.parent_id == old.id
    if document.merge:
        new = {key: value for key, value in stored.items() if key not in nested} | new
    if document.validate_:
        kept = await connection.scalars(sa.select(BlockDocumentReference.name).where(mine)) if document.merge else ()
        await _validate(context, new, {*nested, *kept}.difference(new), schema)
    # A cycle would make the recursive read of the data endless.
    await _check_cycle(connection, old.id, nested.values())
    gone = mine & among(BlockDocumentReference.name, [*new, *nested]) if document.merge else mine
    await connection.execute(sa.delete(BlockDocumentReference).where(gone))
    await _refer(context, connection, old.id, nested)
    return encrypted(context.keyring, new, old.id)


async def _check_cycle(connection: AsyncConnection, document: UUID, nested: Collection[UUID]) -> None:
    """Raise InvalidInput if a document would contain itself."""
    if nested and document in await within(connection, list(nested)):
        raise InvalidInput("A block document cannot contain itself.", ["data"])


async def reveal(context: CommandContext, key: UUID, request_id: str | None) -> tuple[Data | None, set[UUID]]:
    """Return the data of a document in clear text, and the ids of the documents in it.

    An event tells who saw which documents, and no secrets. Without it, nothing is revealed.
    """
    async with context.database.write() as transaction:
        connection, now = transaction.connection, context.clock()
        found = (await read_data(connection, context.keyring, [key], reveal=True)).get(key)
        shown = await within(connection, [key])
        if found is not None:
            name = await connection.scalar(sa.select(BlockDocument.name).where(BlockDocument.id == key))
            nested = [resource("block-document", each, role="block-document") for each in sorted(shown - {key})]
            who = {"actor": context.actor, "request_id": request_id}
            thing = resource("block-document", key, name)
            await tell(transaction, now, [Told(context.new_id(), REVEALED, now, thing, nested, who)])
    return found, shown


async def within(connection: AsyncConnection, ids: list[UUID]) -> set[UUID]:
    """Return the ids of documents, and of all documents nested in them."""
    return {each for (each,) in await fetch(connection, sa.select(_nested_in(ids).c.id))}


def _nested_in(ids: list[UUID]) -> sa.CTE:
    """Return the ids of documents, and of all documents nested in them."""
    tree = sa.select(BlockDocument.id).where(among(BlockDocument.id, ids)).cte(recursive=True)
    below = sa.select(BlockDocumentReference.reference_id).join(tree, tree.c.id == BlockDocumentReference.parent_id)
    # UNION, not UNION ALL: a document that is nested in several places is visited once.
    return tree.union(below)


async def read_data(
    connection: AsyncConnection, keyring: Keyring, ids: list[UUID], *, reveal: bool = False
) -> dict[UUID, Data]:
    """Return the data of documents with those of nested documents in place, and with masks unless they are revealed."""
    tree = _nested_in(ids)
    documents = sa.select(BlockDocument.id, BlockDocument.ciphertext, BlockSchema.definition).join(
        BlockSchema, BlockSchema.id == BlockDocument.block_schema_id
    )
    reference = BlockDocumentReference
    below = sa.select(reference.parent_id, reference.name, reference.reference_id)
    found = await fetch(connection, documents.join(tree, tree.c.id == BlockDocument.id))
    links = await fetch(connection, below.join(tree, tree.c.id == reference.parent_id)) if found else []
    plain: dict[UUID, Data] = {}
    for key, text, definition in found:
        clear = keyring.decrypt(text, about(key))
        plain[key] = clear if reveal else hidden(clear, secret_fields(definition))

    nested: dict[UUID, dict[str, UUID]] = {}
    for parent, name, each in links:
        nested.setdefault(parent, {})[name] = each
    return {key: _whole(key, plain, nested) for key in ids if key in plain}


def _whole(key: UUID, plain: Mapping[UUID, Data], nested: Mapping[UUID, Mapping[str, UUID]]) -> Data:
    """Return the data of a document with those of nested ones. Raise LimitExceeded for too many places of documents."""
    places = 0

    def data_of(key: UUID) -> Data:
        nonlocal places
        places += 1
        if places > MOST_NESTED:
            raise LimitExceeded("blocks", MOST_NESTED)
        return plain.get(key, {}) | {name: data_of(each) for name, each in nested.get(key, {}).items()}

    return data_of(key)


@command(BlockDocument)
async def delete_block_document(context: CommandContext, document_id: UUID, *, force: bool = False) -> None:
    """Delete a block document. Raise InUse if others contain it, unless `force` deletes their references."""
    async with context.database.write() as transaction:
        connection = transaction.connection
        reference = BlockDocumentReference
        here = reference.reference_id == document_id
        if force:
            await connection.execute(sa.delete(reference).where(here))
        else:
            users = sa.select(reference.parent_id).where(here).distinct().order_by(reference.parent_id)
            if used := list((await connection.execute(users.limit(MOST_USERS))).scalars()):
                raise InUse(used)
        await remove(connection, BlockDocument, document_id, context.clock())


@command(BlockDocument)
async def set_default_result_storage(context: CommandContext, document: SetDefaultResultStorage) -> UUID | None:
    """Set or clear the default storage of results; return its id."""
    chosen = document.block_document_id
    async with context.database.write() as transaction:
        connection = transaction.connection
        same = Configuration.key == STORAGE
        if chosen is not None:
            await _check_storage(connection, chosen)
        await connection.execute(sa.delete(Configuration).where(same))
        if chosen is not None:
            columns = {"key": STORAGE, "value": {"block_document_id": str(chosen)}}
            await insert(connection, Configuration, fresh(context) | columns)
    return chosen


async def _check_storage(connection: AsyncConnection, document_id: UUID) -> None:
    schemas = sa.select(BlockSchema.capabilities).join(BlockDocument, BlockDocument.block_schema_id == BlockSchema.id)
    found = await fetch(connection, schemas.where(BlockDocument.id == document_id))
    if not found:
        raise NotFound(document_id)
    if WRITES not in found[0][0]:
        raise InvalidInput(f"The schema of the document lacks the capability `{WRITES}`.", ["blockDocumentId"])
