"""Block types, schemas and documents."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field

from runstate.core.commands import block_documents, block_types
from runstate.database.driver import fetch
from runstate.documents.access import Scope
from runstate.documents.blocks import CreateBlockDocument, CreateBlockSchema, UpdateBlockDocument
from runstate.errors import Forbidden
from runstate.prefect import blocks, objects, pages
from runstate.prefect.bodies import Body, changes
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.pages import BODIES
from runstate.rows import BlockDocument, BlockSchema, BlockType, Configuration

SchemaPage: Any = BODIES[BlockSchema]
DocumentPage: Any = BODIES[BlockDocument]


class TypeChanges(Body):
    """Changes to a block type."""

    logo_url: str | None = None
    documentation_url: str | None = None
    description: str | None = None
    code_example: str | None = None


class NewType(TypeChanges):
    """A block type to create."""

    name: str
    slug: str


class NewSchema(Body):
    """A block schema to create."""

    fields: dict[str, Any] = Field(default={})
    block_type_id: UUID
    capabilities: list[str] = Field(default=[])
    version: str | None = None


class NewDocument(Body):
    """A block document to create."""

    name: str | None = None
    data: dict[str, Any] = Field(default={})
    block_schema_id: UUID
    is_anonymous: bool = False


class DocumentChanges(Body):
    """Changes to a block document."""

    block_schema_id: UUID | None = None
    data: dict[str, Any] | None = None
    merge_existing_data: bool = True


class Documents(DocumentPage):  # type: ignore[misc]
    """A page of block documents."""

    include_secrets: bool | None = None


async def _type(call: Call) -> BlockType:
    if "slug" in call.request.path_params:
        slug = call.text("slug")
        return await objects.only(call, BlockType, "block type", slug, BlockType.slug == slug)
    return await objects.only(call, BlockType, "block type", call.id(), BlockType.id == call.id())


async def _document(call: Call, *conditions: sa.ColumnElement[bool]) -> Any:
    """Return a document. Raise Forbidden if the client asks for secrets that it must not read."""
    asked = call.query("include_secrets") in ("true", "True", "1")
    if asked and not blocks.may_reveal(call):
        raise Forbidden(f"The key lacks the scope `{Scope.SECRETS}`.")
    named = call.request.path_params.get("name", "") or call.request.path_params.get("id", "")
    found = await objects.only(call, BlockDocument, "block document", named, *conditions)
    return (await blocks.documents(call, [found], reveal=asked))[0]


@endpoint("POST", "/block_types/", Scope.PROPOSE, status=201)
async def create_type(call: Call, body: NewType) -> Any:
    """Create a block type."""
    document = block_types.CreateBlockType(**changes(body, BlockType, {}))
    return objects.plain((await block_types.create_block_type(call.context, document)).row)


@endpoint("GET", "/block_types/{id}", Scope.READ)
async def read_type(call: Call) -> Any:
    """Return a block type."""
    return objects.plain(await _type(call))


@endpoint("GET", "/block_types/slug/{slug}", Scope.READ)
async def read_type_by_slug(call: Call) -> Any:
    """Return the block type with a slug."""
    return objects.plain(await _type(call))


@endpoint("PATCH", "/block_types/{id}", Scope.PROPOSE, status=204)
async def update_type(call: Call, body: TypeChanges) -> None:
    """Change a block type. Those of the server stay as they are: the client sends the texts of its own version."""
    if (await _type(call)).is_protected:
        return
    document = block_types.UpdateBlockType(id=call.id(), **changes(body, BlockType, {}))
    await block_types.update_block_type(call.context, document)


@endpoint("DELETE", "/block_types/{id}", Scope.ADMIN, status=204)
async def delete_type(call: Call) -> None:
    """Delete a block type with its schemas and documents."""
    await block_types.delete_block_type(call.context, call.id())


@endpoint("GET", "/block_types/slug/{slug}/block_documents", Scope.READ)
async def documents_of_type(call: Call) -> Any:
    """Return the documents of a block type."""
    mine = (BlockDocument.block_type_id == (await _type(call)).id, ~BlockDocument.is_anonymous)
    return await blocks.documents(call, await objects.where(call, BlockDocument, *mine, order=[BlockDocument.name]))


@endpoint("GET", "/block_types/slug/{slug}/block_documents/name/{name}", Scope.READ)
async def read_document_by_name(call: Call) -> Any:
    """Return the document of a block type with a name."""
    kind = await _type(call)
    return await _document(call, BlockDocument.block_type_id == kind.id, BlockDocument.name == call.text("name"))


@endpoint("POST", "/block_schemas/", Scope.PROPOSE, status=201)
async def create_schema(call: Call, body: NewSchema) -> Any:
    """Create a block schema, or return the schema of the type with the same fields and version."""
    given = {name: value for name, value in body.given.items() if name != "fields"}
    written = await block_types.create_block_schema(call.context, CreateBlockSchema(fields_=body.fields, **given))
    # Without a row only for a dry run.
    return (await blocks.schemas(call, [written.row] if written.row else []))[0]


@endpoint("GET", "/block_schemas/{id}", Scope.READ)
async def read_schema(call: Call) -> Any:
    """Return a block schema."""
    found = await objects.only(call, BlockSchema, "block schema", call.id(), BlockSchema.id == call.id())
    return (await blocks.schemas(call, [found]))[0]


@endpoint("GET", "/block_schemas/checksum/{checksum}", Scope.READ)
async def read_schema_by_checksum(call: Call) -> Any:
    """Return the newest block schema with a checksum and, if one is given, a version."""
    checksum, version = call.text("checksum"), call.query("version")
    which = [BlockSchema.checksum == checksum, *([] if version is None else [BlockSchema.version == version])]
    newest = sa.select(BlockSchema.id).where(*which).order_by(BlockSchema.id.desc()).limit(1).scalar_subquery()
    found = await objects.only(call, BlockSchema, "block schema", checksum, BlockSchema.id == newest)
    return (await blocks.schemas(call, [found]))[0]


@endpoint("POST", "/block_schemas/filter", Scope.READ)
async def list_schemas(call: Call, body: SchemaPage) -> Any:
    """Return a page of block schemas."""
    return await blocks.schemas(call, await objects.rows(call, BlockSchema, pages.page(BlockSchema, body)))


@endpoint("DELETE", "/block_schemas/{id}", Scope.ADMIN, status=204)
async def delete_schema(call: Call) -> None:
    """Delete a block schema with its documents."""
    await block_types.delete_block_schema(call.context, call.id())


@endpoint("GET", "/block_capabilities/", Scope.READ)
async def capabilities(call: Call) -> Any:
    """Return all capabilities of block schemas."""
    asked = sa.select(BlockSchema.capabilities).distinct()
    async with call.database.query(asked) as connection:
        return sorted({name for (names,) in await fetch(connection, asked) for name in names})


@endpoint("POST", "/block_documents/", Scope.PROPOSE, status=201)
async def create_document(call: Call, body: NewDocument) -> Any:
    """Create a block document."""
    made = await block_documents.create_block_document(call.context, CreateBlockDocument(**body.given))
    return (await blocks.documents(call, [made] if made else []))[0]


@endpoint("GET", "/block_documents/{id}", Scope.READ)
async def read_document(call: Call) -> Any:
    """Return a block document."""
    return await _document(call, BlockDocument.id == call.id())


@endpoint("PATCH", "/block_documents/{id}", Scope.PROPOSE, status=204)
async def update_document(call: Call, body: DocumentChanges) -> None:
    """Change a block document."""
    given = {name: value for name, value in body.given.items() if name != "merge_existing_data"}
    document = UpdateBlockDocument(id=call.id(), merge=body.merge_existing_data, **given)
    await block_documents.update_block_document(call.context, document, may_reveal=blocks.may_reveal(call))


@endpoint("DELETE", "/block_documents/{id}", Scope.ADMIN, status=204)
async def delete_document(call: Call) -> None:
    """Delete a block document."""
    await block_documents.delete_block_document(call.context, call.id())


@endpoint("POST", "/block_documents/filter", Scope.READ)
async def list_documents(call: Call, body: Documents) -> Any:
    """Return a page of block documents, by default without those that programs created for themselves."""
    own = [] if body.block_documents else [~BlockDocument.is_anonymous]
    found = await objects.rows(call, BlockDocument, pages.page(BlockDocument, body, *own))
    return await blocks.documents(call, found, reveal=bool(body.include_secrets) and blocks.may_reveal(call))


class Storage(Body):
    """The default storage of results."""

    default_result_storage_block_id: UUID | None = None


@endpoint("GET", "/admin/storage", Scope.READ)
async def read_storage(call: Call) -> Any:
    """Return the default storage of results."""
    asked = sa.select(Configuration.value).where(Configuration.key == block_documents.STORAGE)
    async with call.database.read() as connection:
        found = await fetch(connection, asked)
    return {"default_result_storage_block_id": found[0][0]["block_document_id"] if found else None}


@endpoint("PUT", "/admin/storage", Scope.ADMIN, status=204)
async def set_storage(call: Call, body: Storage) -> None:
    """Set or clear the default storage of results."""
    chosen = block_documents.SetDefaultResultStorage(block_document_id=body.default_result_storage_block_id)
    await block_documents.set_default_result_storage(call.context, chosen)


@endpoint("DELETE", "/admin/storage", Scope.ADMIN, status=204)
async def clear_storage(call: Call) -> None:
    """Clear the default storage of results."""
    await block_documents.set_default_result_storage(call.context, block_documents.SetDefaultResultStorage())
