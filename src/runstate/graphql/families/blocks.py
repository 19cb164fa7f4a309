"""Blocks: types, schemas and documents, secrets, and the default storage of results."""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

import orjson
import sqlalchemy as sa
import strawberry
import structlog

from runstate.core.blocks import secret_fields as paths_of
from runstate.core.commands import block_documents, block_types
from runstate.core.commands.block_documents import SetDefaultResultStorage, read_data
from runstate.database.bulk import table_of
from runstate.documents import exact_json
from runstate.documents.access import Scope
from runstate.documents.blocks import (
    BlockDocumentName,
    BlockDocumentRef,
    BlockSchemaRef,
    BlockSchemaVersion,
    CreateBlockDocument,
    CreateBlockSchema,
    UpdateBlockDocument,
)
from runstate.errors import InUse, InvalidInput, LimitExceeded, NameTaken, NoSecretKey, NotFound
from runstate.graphql.context import Context, Info
from runstate.graphql.families.family import Command, Delete, Family, by_reference, change, creation, deletion
from runstate.graphql.families.mutations import CREATED, DeletePayload, deleted, mutation, payload
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.pagination.keyset import LARGEST_SIZE, PageArguments
from runstate.graphql.pagination.raw_rows import as_parsed
from runstate.graphql.published import (
    BlockDocument,
    BlockDocumentReference,
    BlockSchema,
    BlockSchemaReference,
    BlockType,
    Configuration,
)
from runstate.graphql.types.derive import computes, extends
from runstate.graphql.types.fields import Id, object_type, query
from runstate.graphql.types.filters import Extra
from runstate.graphql.types.inputs import Input, register_input

log = structlog.get_logger(__name__)
JSON: Any = strawberry.scalars.JSON
PROTECTABLE = (InvalidInput, NotFound)

register_input(BlockDocumentName, name="BlockDocumentNameRef")
register_input(BlockDocumentRef, name="BlockDocumentRef", one_of=True)
register_input(BlockSchemaVersion, name="BlockSchemaVersionRef")
register_input(BlockSchemaRef, name="BlockSchemaRef", one_of=True)


ALL: PageArguments[Any] = PageArguments(first=LARGEST_SIZE)


def _with_anonymous(table: sa.FromClause, value: Any) -> Any:
    return sa.true() if value else table.c.is_anonymous.is_(False)


ANONYMOUS = Extra(bool, "True to list anonymous documents too.", _with_anonymous, default=False)
CREATE_TYPE = Command(block_types.create_block_type, block_types.CreateBlockType, (InvalidInput, NameTaken))
UPDATE_TYPE = Command(block_types.update_block_type, block_types.UpdateBlockType, (InvalidInput, NotFound))
DELETE_TYPE = Delete(
    block_types.delete_block_type,
    "Delete a block type with its schemas and documents; not a protected one.",
    PROTECTABLE,
    "DeleteProtectableResult",
)
DELETE_SCHEMA = Delete(
    block_types.delete_block_schema,
    "Delete a block schema with its documents; not one of a protected type.",
    PROTECTABLE,
    "DeleteProtectableResult",
)
FAMILY = Family(
    BlockType,
    {
        "block_type": by_reference(BlockType, "slug"),
        "block_types": rows_of(BlockType, "All block types that meet a condition, by name."),
        "block_schemas": rows_of(BlockSchema, "All block schemas that meet a condition; newest first by default."),
        "block_documents": rows_of(
            BlockDocument, "All block documents that meet a condition, by name.", anonymous=ANONYMOUS
        ),
    },
    {
        "create_block_type": creation(BlockType, CREATE_TYPE, Scope.PROPOSE),
        "update_block_type": change(BlockType, UPDATE_TYPE, Scope.PROPOSE),
        "delete_block_type": deletion(BlockType, DELETE_TYPE, Scope.ADMIN),
        "delete_block_schema": deletion(BlockSchema, DELETE_SCHEMA, Scope.ADMIN),
    },
)


@computes(BlockSchema, needs={"definition"}, parses=True)
def fields(root: BlockSchema, _: Context) -> JSON:
    """A JSON Schema of the data, with `secret_fields` and `block_schema_references`."""
    # As text again: parsed, the schemas of a page take hundreds of megabytes.
    return orjson.Fragment(exact_json.dumps({"block_schema_references": {}, **as_parsed(root.definition)}))


@computes(BlockSchema, needs={"definition"}, parses=True)
def secret_fields(root: BlockSchema, _: Context) -> list[str]:
    """Paths of secrets in the data, with dots between keys; `*` stands for all keys from there on."""
    return paths_of(as_parsed(root.definition))


@extends(BlockSchema, name="references", needs=())
async def references_of_schema(root: strawberry.Parent[BlockSchema], info: Info) -> list[BlockSchemaReference]:
    """The schemas of blocks that its blocks can contain, at most 200."""
    return await info.context.children(info, BlockSchemaReference, ALL, "parent_id", root.id)


@extends(BlockDocument, needs=())
async def references(root: strawberry.Parent[BlockDocument], info: Info) -> list[BlockDocumentReference]:
    """The documents that are nested in this one, at most 200."""
    return await info.context.children(info, BlockDocumentReference, ALL, "parent_id", root.id)


@extends(BlockDocument, needs=())
async def referenced_by(root: strawberry.Parent[BlockDocument], info: Info) -> list[BlockDocumentReference]:
    """The documents in which this one is nested, at most 200."""
    return await info.context.children(info, BlockDocumentReference, ALL, "reference_id", root.id)


@extends(BlockDocument, needs=())
async def data(root: strawberry.Parent[BlockDocument], info: Info) -> JSON:
    """The data, with nested documents in place and `********` in place of secrets, except null."""
    # The documents of a list are read together.
    loader = info.context.loader(data, partial(_masked, info.context))
    return await loader.load(root.id)


async def _masked(context: Context, keys: list[UUID]) -> list[Any]:
    try:
        async with context.database.read() as connection:
            found = await read_data(connection, context.commands.keyring, keys)
    except (LimitExceeded, NoSecretKey) as error:
        # One document that cannot be read must not hide the others.
        return [error] if len(keys) == 1 else [(await _masked(context, [key]))[0] for key in keys]
    return [found.get(key, {}) for key in keys]


async def _revealed(info: Info, key: UUID) -> Any:
    """Return the data of a document in clear text; an event and the log tell who saw which documents."""
    context = info.context
    found, shown = await block_documents.reveal(context.commands, key, context.request_id)
    if found is not None:
        # A warning, so that it is logged at every usual level.
        log.warning(
            "secrets_revealed",
            actor=context.actor,
            request_id=context.request_id,
            block_document_ids=sorted(map(str, shown)),
        )
    return found


@object_type
class BlockDocumentSecrets:
    """The data of a block document in clear text."""

    data: JSON = strawberry.field(description="The data, with nested documents in place and all secrets.")
    document: BlockDocument = strawberry.field(description="The document.")


CreateBlockSchemaPayload: Any = payload(
    "CreateBlockSchemaPayload",
    "The block schema, new or existing.",
    block_schema=(BlockSchema | None, "The schema; null after a dry run if it does not exist."),
    checksum=(str, "Its checksum."),
    created=(bool, CREATED),
)
CreateBlockDocumentPayload: Any = payload(
    "CreateBlockDocumentPayload",
    "The block document.",
    block_document=(BlockDocument | None, "The document; null after a dry run."),
)
UpdateBlockDocumentPayload: Any = payload(
    "UpdateBlockDocumentPayload", "The updated block document.", block_document=(BlockDocument, "The document.")
)
SetDefaultResultStoragePayload: Any = payload(
    "SetDefaultResultStoragePayload",
    "The default storage of results.",
    default_result_storage=(BlockDocument | None, "The document; null without one."),
)
WhichSchema = Annotated[Input[BlockSchemaRef], strawberry.argument(description="The schema.")]
WhichDocument = Annotated[Input[BlockDocumentRef], strawberry.argument(description="The document.")]
NewSchema = Annotated[Input[CreateBlockSchema], strawberry.argument(description="The new schema.")]
NewDocument = Annotated[Input[CreateBlockDocument], strawberry.argument(description="The new document.")]
Changed = Annotated[Input[UpdateBlockDocument], strawberry.argument(description="The document, and its changes.")]
Storage = Annotated[Input[SetDefaultResultStorage], strawberry.argument(description="The storage; null clears it.")]
Force = Annotated[bool, strawberry.argument(description="True to delete references of other documents to it.")]


@strawberry.type
class Query:
    """Single blocks, secrets, capabilities, and the default storage."""

    @query
    async def block_schema(self, info: Info, by: WhichSchema) -> BlockSchema | None:
        """The block schema with an id or a checksum; null if it is unknown."""
        ref, table = by.checked(), table_of(BlockSchema)
        if ref.id:
            return await info.context.load(info, BlockSchema, ref.id)
        wanted: Any = ref.checksum_and_version or ref
        newest = sa.select(table.c.id).where(table.c.checksum == wanted.checksum).order_by(table.c.id.desc()).limit(1)
        if ref.checksum_and_version:
            newest = newest.where(table.c.version == wanted.version)
        found = await info.context.fetch(newest)
        return await info.context.load(info, BlockSchema, found[0][0]) if found else None

    @query
    async def block_capabilities(self, info: Info) -> list[str]:
        """All capabilities of block schemas, in alphabetical order."""
        found = await info.context.fetch(sa.select(BlockSchema.capabilities).distinct())
        return sorted({name for (names,) in found for name in names})

    @query
    async def block_document(self, info: Info, by: WhichDocument) -> BlockDocument | None:
        """The block document with an id, or with a type and a name; null if it is unknown."""
        return await _document(info, by.checked())

    @partial(query, scope=Scope.SECRETS)
    async def block_document_secrets(self, info: Info, by: WhichDocument) -> BlockDocumentSecrets | None:
        """The data of a block document in clear text, with those of nested documents; null if it is unknown."""
        ref = by.checked()
        key = ref.id or await _key_of(info, ref)
        revealed = await _revealed(info, key) if key else None
        document = await info.context.row(BlockDocument, key) if revealed is not None else None
        return BlockDocumentSecrets(data=revealed, document=document) if document else None

    @query
    async def default_result_storage(self, info: Info) -> BlockDocument | None:
        """The block document that stores results by default; null without one."""
        table = table_of(Configuration)
        found = await info.context.fetch(sa.select(table.c.value).where(table.c.key == block_documents.STORAGE))
        return await info.context.load(info, BlockDocument, found[0][0]["block_document_id"]) if found else None


async def _document(info: Info, ref: BlockDocumentRef) -> BlockDocument | None:
    key = ref.id or await _key_of(info, ref)
    return await info.context.load(info, BlockDocument, key)


async def _key_of(info: Info, ref: BlockDocumentRef) -> UUID | None:
    if ref.name is None or "\0" in ref.name.name + ref.name.block_type_slug:
        return None
    documents = sa.select(BlockDocument.id).join(BlockType, BlockType.id == BlockDocument.block_type_id)
    same = documents.where(BlockType.slug == ref.name.block_type_slug, BlockDocument.name == ref.name.name)
    found = await info.context.fetch(same)
    return found[0][0] if found else None


@strawberry.type
class Mutation:
    """Block schemas, block documents, and the default storage."""

    @mutation(Scope.PROPOSE, InvalidInput, NotFound, returns=CreateBlockSchemaPayload)
    async def create_block_schema(self, info: Info, input: NewSchema) -> Any:
        """Create a block schema with the nested ones.

        An existing schema of the type with the same checksum and version is returned; its secret fields are extended.
        """
        written = await block_types.create_block_schema(info.context.commands, input.checked())
        return CreateBlockSchemaPayload(block_schema=written.row, checksum=written.checksum, created=written.created)

    @mutation(Scope.PROPOSE, InvalidInput, NameTaken, NotFound, returns=CreateBlockDocumentPayload)
    async def create_block_document(self, info: Info, input: NewDocument) -> Any:
        """Create a block document. Its data is encrypted before it is stored."""
        made = await block_documents.create_block_document(info.context.commands, input.checked())
        return CreateBlockDocumentPayload(block_document=made)

    @mutation(Scope.PROPOSE, InvalidInput, NotFound, returns=UpdateBlockDocumentPayload)
    async def update_block_document(self, info: Info, input: Changed) -> Any:
        """Update a block document. `********` in place of a secret leaves the secret unchanged.

        To show kept secrets by another schema needs the scope `secrets`.
        """
        may_reveal = Scope.SECRETS in info.context.principal.scopes
        changed = await block_documents.update_block_document(
            info.context.commands, input.checked(), may_reveal=may_reveal
        )
        return UpdateBlockDocumentPayload(block_document=changed)

    @mutation(Scope.ADMIN, InUse, NotFound, returns=DeletePayload, result="DeleteBlockDocumentResult")
    async def delete_block_document(self, info: Info, id: Id, *, force: Force = False) -> Any:
        """Delete a block document that no other document contains, or with `force` also the references to it."""
        return await deleted(info, id, partial(block_documents.delete_block_document, force=force))

    @mutation(Scope.ADMIN, InvalidInput, NotFound, returns=SetDefaultResultStoragePayload)
    async def set_default_result_storage(self, info: Info, input: Storage) -> Any:
        """Set the block document that stores results by default."""
        key = await block_documents.set_default_result_storage(info.context.commands, input.checked())
        document = await info.context.row(BlockDocument, key) if key else None
        return SetDefaultResultStoragePayload(default_result_storage=document)
