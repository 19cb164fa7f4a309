"""Block types, schemas and documents as JSON objects of the client."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog

from runstate.core.commands.block_documents import read_data, within
from runstate.database.dialects import among
from runstate.documents.access import Scope
from runstate.prefect.endpoint import Call
from runstate.prefect.objects import by_id, plain, where
from runstate.prefect.presentation import Object
from runstate.rows import BlockDocument, BlockDocumentReference, BlockSchema, BlockType

log = structlog.get_logger(__name__)


async def schemas(call: Call, found: Sequence[BlockSchema]) -> list[Object]:
    """Return block schemas, each with its type."""
    types = await by_id(call, BlockType, (each.block_type_id for each in found))
    return [_schema(each, types) for each in found]


def _schema(row: BlockSchema, types: Mapping[UUID | None, BlockType]) -> Object:
    kind = types.get(row.block_type_id)
    fields = {"block_schema_references": {}, **row.definition}
    return {**plain(row), "fields": fields, "block_type": plain(kind) if kind else None}


async def documents(call: Call, found: Sequence[BlockDocument], *, reveal: bool = False) -> list[Object]:
    """Return block documents, each with its type, its schema and its data; secrets are masked unless revealed."""
    if not found:
        return []
    types = await by_id(call, BlockType, (each.block_type_id for each in found))
    known = await by_id(call, BlockSchema, (each.block_schema_id for each in found))
    data = await _data(call, [each.id for each in found], reveal=reveal)
    nested = await _nested(call, [each.id for each in found])
    return [
        {
            **plain(each),
            "data": data.get(each.id, {}),
            "block_type": plain(types[each.block_type_id]) if each.block_type_id in types else None,
            "block_schema": _schema(known[each.block_schema_id], types) if each.block_schema_id in known else None,
            "block_document_references": nested.get(each.id, {}),
        }
        for each in found
    ]


async def _data(call: Call, ids: list[UUID], *, reveal: bool) -> dict[UUID, Any]:
    async with call.database.read() as connection:
        found = await read_data(connection, call.context.keyring, ids, reveal=reveal)
        shown = await within(connection, ids) if reveal else set()
    if shown:
        # A warning, so that it is logged at every usual level.
        who = {"actor": call.context.actor, "request_id": call.request_id}
        log.warning("secrets_revealed", **who, block_document_ids=sorted(map(str, shown)))
    return found


async def _nested(call: Call, ids: Iterable[UUID]) -> dict[UUID, dict[str, Object]]:
    """Return the documents that are nested in others, by the id of these and the name of the field."""
    links = await where(call, BlockDocumentReference, among(BlockDocumentReference.parent_id, sorted(ids)))
    inner = await by_id(call, BlockDocument, (each.reference_id for each in links))
    types = await by_id(call, BlockType, (each.block_type_id for each in inner.values()))
    found = defaultdict[UUID, dict[str, Object]](dict)
    for link in links:
        if document := inner.get(link.reference_id):
            found[link.parent_id][link.name] = {"block_document": _inner(document, types[document.block_type_id])}
    return found


def _inner(row: BlockDocument, kind: BlockType) -> Object:
    shown = {"id": row.id, "name": row.name, "is_anonymous": row.is_anonymous}
    return {**shown, "block_type": plain(kind), "block_document_references": {}}


def may_reveal(call: Call) -> bool:
    """Return whether the client may read secrets."""
    return Scope.SECRETS in call.principal.scopes
