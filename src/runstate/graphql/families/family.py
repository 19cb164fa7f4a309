"""Families: the root fields of one table, derived from its row and a short declaration."""

import functools
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated, Any, Final, NamedTuple

import strawberry
from pydantic import Field

from runstate.core.commands import crud
from runstate.core.commands.crud import Written
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NameTaken, NotFound, Problem
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import CREATED, DeletePayload, deleted, mutation, payload
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.types.derive import optional
from runstate.graphql.types.fields import Id, query
from runstate.graphql.types.inputs import Input, register_input
from runstate.rows import Row
from runstate.rows.documents import create_document, noun, reference_document, update_document

OVERWRITE: Final = (
    bool,
    Field(
        default=False,
        description="True to update the existing object with this name; by default the result is a NameTaken.",
    ),
)


class Command(NamedTuple):
    """A command with the document that it takes and the problems that it raises."""

    run: Callable[..., Awaitable[Any]]
    document: Any
    problems: tuple[type[Problem], ...] = (InvalidInput,)
    description: str = ""
    scope: Scope | None = None
    """The scope of the family by default."""


class Delete(NamedTuple):
    """A command that deletes a row by its id."""

    run: Callable[..., Awaitable[None]]
    description: str = ""
    problems: tuple[type[Problem], ...] = (NotFound,)
    result: str = "DeleteResult"
    scope: Scope | None = None
    """The scope of the family by default."""


class Family:
    """The classes `Query` and `Mutation` that the schema merges."""

    def __init__(self, row: type[Row], queries: dict[str, Any], mutations: dict[str, Any]) -> None:
        self.row = row
        self.Query = strawberry.type(type("Query", (), queries)) if queries else None
        self.Mutation = strawberry.type(type("Mutation", (), mutations)) if mutations else None


def family(
    row: type[Row],
    *,
    scope: Scope,
    lookup: str | Callable[..., Any] | None = None,
    overwrite: bool = False,
    create: Command | None = None,
    update: Command | None = None,
    delete: Delete | None = None,
    plural: str | None = None,
) -> Family:
    """Return the family of a row: an object, a list, and mutations that create, update and delete it.

    `lookup` names a unique column to find an object by, besides its id, or is the query of one object. The default
    commands are those of a table without rules; with `overwrite` the creation has an option to update an existing row.
    """
    name = str(row.__tablename__)
    reference = reference_of(row, lookup) if isinstance(lookup, str) else None
    create = create or _create(row, overwrite=overwrite)
    update = update or Command(
        crud.update(row), update_document(row, by=reference), (InvalidInput, NameTaken, NotFound)
    )
    return Family(
        row,
        {
            name: _one(row, lookup),
            plural or f"{name}s": rows_of(row, f"All {noun(row)}s that meet a condition."),
        },
        {
            f"create_{name}": creation(row, create, scope),
            f"update_{name}": change(row, update, scope),
            f"delete_{name}": deletion(row, delete or Delete(crud.delete(row)), scope),
        },
    )


def _create(row: type[Row], *, overwrite: bool) -> Command:
    options: dict[str, Any] = {"overwrite": OVERWRITE} if overwrite else {}
    description = f"Create a {noun(row)}. With `overwrite`, an existing one with this name is updated instead."
    return Command(
        crud.create(row),
        create_document(row, **options),
        (InvalidInput, NameTaken),
        description if overwrite else f"Create a {noun(row)}.",
    )


def _one(row: type[Row], lookup: str | Callable[..., Any] | None) -> Any:
    if lookup is None:
        return by_id(row)
    return by_reference(row, lookup) if isinstance(lookup, str) else lookup


def by_id(row: type[Row]) -> Any:
    """Return the query of one object by its id."""

    async def get(self: Any, info: Info, id: Id) -> Any:
        return await info.context.load(info, row, id)

    # Strawberry reads types from annotations; this one is known at run time only.
    get.__annotations__["return"] = optional(row)
    get.__doc__ = f"The {noun(row)} with an id; null if the id is unknown."
    return query(get)


@cache
def reference_of(row: type[Row], lookup: str) -> Any:
    """Return the document that names a row by its id or by a unique column, registered as an input."""
    # Cached: the query and the update of a family have the same input type, which is registered once.
    reference = reference_document(row, lookup)
    register_input(reference, name=reference.__name__, one_of=True)
    return reference


def by_reference(row: type[Row], lookup: str) -> Any:
    """Return the query of one object by its id or by a unique column."""
    reference = reference_of(row, lookup)
    argument = strawberry.argument(description=f"The id or {lookup} of the {noun(row)}.")

    async def get(self: Any, info: Info, by: Any) -> Any:
        value = getattr(by, lookup)
        if isinstance(value, str):
            return await info.context.named(info, row, lookup, value)
        return await info.context.load(info, row, by.id)

    get.__annotations__ |= {"by": Annotated[Input.__class_getitem__(reference), argument], "return": optional(row)}
    get.__doc__ = f"The {noun(row)} with an id or a {lookup}; null if it is unknown."
    return query(get)


@functools.cache
def created_payload(row: type[Row]) -> Any:
    """Return the payload of the mutations that create a row or find an existing one."""
    members = {str(row.__tablename__): (row, f"The {noun(row)}."), "created": (bool, CREATED)}
    return payload(f"Create{row.__name__}Payload", f"The {noun(row)}, new or existing.", **members)


def creation(row: type[Row], command: Command, scope: Scope) -> Any:
    """Return the mutation that creates a row or finds an existing one. Its payload has `created`."""
    name, made = str(row.__tablename__), created_payload(row)

    async def create(self: Any, info: Info, input: Any) -> Any:
        written: Written[Any] = await command.run(info.context.commands, input.checked())
        return made(**{name: written.row, "created": written.created})

    text = command.description or f"Create a {noun(row)}."
    return _mutation(create, f"create_{name}", command, scope, made, f"Fields of the new {noun(row)}.", text)


def change(row: type[Row], command: Command, scope: Scope) -> Any:
    """Return the mutation that updates a row."""
    name = str(row.__tablename__)
    made = payload(
        f"Update{row.__name__}Payload", f"The updated {noun(row)}.", **{name: (row, f"The {noun(row)} as written.")}
    )

    async def update(self: Any, info: Info, input: Any) -> Any:
        return made(**{name: await command.run(info.context.commands, input.checked())})

    text = command.description or f"Update a {noun(row)}. Omitted fields keep their value."
    argument = f"The {noun(row)}, and the fields to change."
    return _mutation(update, f"update_{name}", command, scope, made, argument, text)


def deletion(row: type[Row], command: Delete, scope: Scope) -> Any:
    """Return the mutation that deletes a row."""

    async def delete(self: Any, info: Info, id: Id) -> Any:
        return await deleted(info, id, command.run)

    delete.__name__ = f"delete_{row.__tablename__}"
    delete.__doc__ = command.description or f"Delete a {noun(row)}."
    wrap = mutation(command.scope or scope, *command.problems, returns=DeletePayload, result=command.result)
    return wrap(delete)


def _mutation(resolve: Any, name: str, command: Command, scope: Scope, made: Any, argument: str, text: str) -> Any:
    # Strawberry derives the name and the description of a mutation from its function.
    resolve.__name__, resolve.__doc__ = name, text
    described = strawberry.argument(description=argument)
    kind: Any = Input.__class_getitem__(command.document)
    resolve.__annotations__ |= {"input": Annotated[kind, described]}
    return mutation(command.scope or scope, *command.problems, returns=made)(resolve)
