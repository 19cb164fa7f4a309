"""Concurrency limits: global ones by name, and those of tags, which are limits with the name `tag:<tag>`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field

from runstate.core.commands.concurrency_limits import (
    CreateConcurrencyLimit,
    UpdateConcurrencyLimit,
    create_limit,
    delete_limit,
    reset_limit,
    update_limit,
)
from runstate.core.slots import occupied
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.queries.orchestration import all_of
from runstate.documents.access import Scope
from runstate.errors import NameTaken, NotFound
from runstate.prefect.bodies import Body
from runstate.prefect.endpoint import Call, Reply, endpoint
from runstate.rows import ConcurrencyLease, ConcurrencyLimit

TAG: Final = "tag:"
HOLDER: Final = "task_run:"
Offset = Annotated[int, Field(ge=0, lt=2**31)]


class TagLimit(Body):
    """A limit of a tag."""

    tag: str
    concurrency_limit: Annotated[int, Field(ge=0)]


class NewLimit(Body):
    """A limit to create."""

    name: str
    limit: Annotated[int, Field(ge=0)]
    active: bool = True
    slot_decay_per_second: Annotated[float, Field(ge=0)] = 0.0


class Changes(Body):
    """Changes of a limit."""

    limit: Annotated[int, Field(ge=0)] | None = None
    active: bool | None = None
    slot_decay_per_second: Annotated[float, Field(ge=0)] | None = None


class Part(Body):
    """The part of the list that is wanted."""

    limit: Annotated[int, Field(ge=0, le=200)] | None = None
    offset: Offset | None = None


@endpoint("POST", "/v2/concurrency_limits/", Scope.ADMIN, status=201)
async def create(call: Call, body: NewLimit) -> Any:
    """Create a limit."""
    if existing := await _found(call, ConcurrencyLimit.name == body.name, limit=1):
        raise NameTaken(existing[0].id, ("name",), f"A limit has the name `{body.name}` already.")
    made = await create_limit(call.context, CreateConcurrencyLimit(**body.model_dump()))
    return _global(made.row, call)


@endpoint("GET", "/v2/concurrency_limits/{id_or_name}", Scope.READ)
async def read(call: Call) -> Any:
    """Return a limit."""
    return _global(await _one(call), call)


@endpoint("PATCH", "/v2/concurrency_limits/{id_or_name}", Scope.ADMIN, status=204)
async def update(call: Call, body: Changes) -> None:
    """Change a limit."""
    limit = await _one(call)
    await update_limit(call.context, UpdateConcurrencyLimit(id=limit.id, **body.given))


@endpoint("DELETE", "/v2/concurrency_limits/{id_or_name}", Scope.ADMIN, status=204)
async def delete(call: Call) -> None:
    """Delete a limit."""
    await delete_limit(call.context, (await _one(call)).id)


@endpoint("POST", "/v2/concurrency_limits/filter", Scope.READ)
async def read_many(call: Call, body: Part) -> Any:
    """Return a page of limits, by name."""
    return [_global(each, call) for each in await _found(call, sa.true(), body.limit, body.offset)]


@endpoint("POST", "/concurrency_limits/", Scope.ADMIN)
async def create_for_tag(call: Call, body: TagLimit) -> Reply:
    """Create the limit of a tag, or change its number of slots."""
    made = await create_limit(
        call.context, CreateConcurrencyLimit(name=f"{TAG}{body.tag}", limit=body.concurrency_limit, active=True)
    )
    return Reply((await _of_tags(call, [made.row]))[0], 201 if made.created else 200)


@endpoint("GET", "/concurrency_limits/{id}", Scope.READ)
@endpoint("GET", "/concurrency_limits/tag/{tag}", Scope.READ)
async def read_for_tag(call: Call) -> Any:
    """Return the limit of a tag, with the task runs that hold its slots."""
    return (await _of_tags(call, [await _of_tag(call)]))[0]


@endpoint("DELETE", "/concurrency_limits/{id}", Scope.ADMIN)
@endpoint("DELETE", "/concurrency_limits/tag/{tag}", Scope.ADMIN)
async def delete_for_tag(call: Call) -> None:
    """Delete the limit of a tag."""
    await delete_limit(call.context, (await _of_tag(call)).id)


@endpoint("POST", "/concurrency_limits/tag/{tag}/reset", Scope.ADMIN)
async def reset_for_tag(call: Call) -> None:
    """Free all slots of the limit of a tag."""
    await reset_limit(call.context, (await _of_tag(call)).id)


@endpoint("POST", "/concurrency_limits/filter", Scope.READ)
async def read_many_for_tags(call: Call, body: Part) -> Any:
    """Return a page of the limits of tags."""
    tagged = ConcurrencyLimit.name.startswith(TAG, autoescape=True)
    return await _of_tags(call, await _found(call, tagged, body.limit, body.offset))


async def _found(
    call: Call, where: sa.ColumnElement[bool], limit: int | None = None, offset: int | None = None
) -> list[ConcurrencyLimit]:
    """Return limits of clients, by name."""
    asked = (
        sa.select(*table_of(ConcurrencyLimit).columns)
        .where(where, ConcurrencyLimit.deployment_id.is_(None))
        .order_by(ConcurrencyLimit.name)
        .limit(200 if limit is None else limit)
        .offset(offset or 0)
    )
    async with call.database.read() as connection:
        return await all_of(connection, ConcurrencyLimit, asked)


async def _one(call: Call) -> ConcurrencyLimit:
    """Return the limit that the path names. Raise NotFound if it is unknown."""
    text = call.text("id_or_name")
    where = ConcurrencyLimit.name == text
    with suppress(ValueError):
        where |= ConcurrencyLimit.id == UUID(text)
    return _only(await _found(call, where, limit=1), text)


async def _of_tag(call: Call) -> ConcurrencyLimit:
    """Return the limit of the tag or with the id in the path. Raise NotFound if it is unknown."""
    if "id" in call.request.path_params:
        tagged = ConcurrencyLimit.name.startswith(TAG, autoescape=True)
        return _only(await _found(call, (ConcurrencyLimit.id == call.id()) & tagged, limit=1), call.text("id"))
    tag = call.text("tag")
    return _only(await _found(call, ConcurrencyLimit.name == f"{TAG}{tag}", limit=1), tag)


def _only(found: list[ConcurrencyLimit], name: str) -> ConcurrencyLimit:
    if not found:
        raise NotFound(message=f"No concurrency limit has the name, tag or id `{name}`.")
    return found[0]


def _global(row: ConcurrencyLimit, call: Call) -> dict[str, Any]:
    names = ("id", "created", "updated", "name", "limit", "active", "slot_decay_per_second")
    return {**{name: getattr(row, name) for name in names}, "active_slots": round(occupied(row, call.now))}


async def _of_tags(call: Call, rows: list[ConcurrencyLimit]) -> list[dict[str, Any]]:
    """Return the limits of tags, each with the ids of the task runs that hold its slots."""
    asked = sa.select(ConcurrencyLease.limit_id, ConcurrencyLease.holder, ConcurrencyLease.run_id).where(
        among(ConcurrencyLease.limit_id, [each.id for each in rows])
    )
    holders: dict[UUID, list[str]] = {each.id: [] for each in rows}
    async with call.database.read() as connection:
        for limit_id, holder, run_id in await connection.execute(asked):
            held = str(run_id) if run_id else (holder or "").removeprefix(HOLDER)
            holders[limit_id] += [held] if held else []
    return [
        {
            "id": each.id,
            "created": each.created,
            "updated": each.updated,
            "tag": each.name.removeprefix(TAG),
            "concurrency_limit": each.limit,
            "active_slots": holders[each.id],
        }
        for each in rows
    ]
