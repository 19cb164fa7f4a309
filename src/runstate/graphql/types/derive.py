"""GraphQL types read off the classes that hold the data.

A row, a document, a dataclass or an enum is a GraphQL type as it stands: `publish` takes names, types, nullability
and texts from the class, so that nothing is declared a second time. Strawberry finds the type under the attribute
`__strawberry_definition__`, which this module hangs on the class; that is its one trick.
"""

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from itertools import pairwise
from types import NoneType, UnionType, new_class
from typing import Any, NamedTuple, Optional, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

import sqlalchemy as sa
import strawberry
from pydantic import BaseModel
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.enum import StrawberryEnumDefinition
from strawberry.types.field import StrawberryField
from strawberry.types.lazy_type import LazyType

from runstate.errors import Id
from runstate.graphql.types.fields import Root, description_of
from runstate.graphql.types.input_values import DEFINITION
from runstate.rows import Base, Row

F = TypeVar("F", bound=Callable[..., Any])
B = TypeVar("B", bound=Base)
C = TypeVar("C", bound="Computed")


class Member(NamedTuple):
    """One value that a class holds."""

    name: str
    type: Any
    doc: str | None


class Reference(NamedTuple):
    """One row that a row points at."""

    name: str
    key: str
    target: type[Row]
    optional: bool
    doc: str | None


class ReferenceLookup(NamedTuple):
    """How a field is answered that has nothing but the row behind a key of its object."""

    target: type[Row]
    key: str


Computed = Callable[[Any, Any], Any]
"""Answers a field of an object, given the object and the context, at once."""


def is_row(thing: object) -> bool:
    """Whether this is a class of rows, and not a variable that stands for one."""
    return isinstance(thing, type) and issubclass(thing, Row)


def tables(row: type[B]) -> list[type[B]]:
    """The classes with a table of their own among a row class and those below it."""
    if "__table__" in vars(row):
        return [row]
    return [table for below in row.__subclasses__() for table in tables(below)]


def members(cls: type) -> list[Member]:
    """What is stored in a class and is not private, in the order of declaration."""
    if issubclass(cls, Base):
        return list(_columns(cls))
    if issubclass(cls, BaseModel):
        hints = get_type_hints(cls)
        return [Member(name, hints[name], field.description) for name, field in cls.model_fields.items()]
    hints, docs = get_type_hints(cls), texts(cls)
    return [
        Member(field.name, hints[field.name], docs.get(field.name)) for field in dataclasses.fields(cast("Any", cls))
    ]


def _columns(row: type[Base]) -> Iterator[Member]:
    columns = sa.inspect(tables(row)[0]).columns
    for name, hint in get_type_hints(row).items():
        if name in columns and not columns[name].info.get("private"):
            yield Member(name, get_args(hint)[0], columns[name].doc)


def references(row: type[Row]) -> list[Reference]:
    """The rows that a row points at; of an interface: those that all its rows point at by the same name."""
    if row in tables(row):
        return list(_relationships(row))
    each = [{reference.name: reference for reference in _relationships(table)} for table in tables(row)]
    shared = set.intersection(*(set(found) for found in each))
    return [
        reference._replace(target=_common(found[reference.name].target for found in each), doc=None)
        for reference in each[0].values()
        if reference.name in shared
    ]


def _relationships(row: type[Row]) -> Iterator[Reference]:
    for relation in sa.inspect(row).relationships:
        (key,) = relation.local_columns
        yield Reference(relation.key, str(key.key), relation.mapper.class_, bool(key.nullable), relation.doc)


def _common(rows: Iterator[type[Row]]) -> type[Row]:
    first, *others = rows
    return next(base for base in first.__mro__ if all(issubclass(other, base) for other in others))


def texts(cls: type) -> dict[str, str]:
    """The texts that stand under the members of an enum or a dataclass."""
    (written,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    body = cast("ast.ClassDef", written).body
    found = {}
    for member, text in pairwise(body):
        match member, text:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(doc))),
            ):
                found[name] = inspect.cleandoc(doc)
    return found


def graphql_type_of(annotation: Any) -> Any:
    """How GraphQL calls a type: UUIDs are ids, tuples are lists, anything else that is not a class of ours is JSON."""
    if annotation in (UUID, Id):
        return strawberry.ID
    if annotation is Any or get_origin(annotation) is dict:
        return strawberry.scalars.JSON
    arguments = get_args(annotation)
    if get_origin(annotation) in (list, tuple):
        return list_of(graphql_type_of(arguments[0]))
    if get_origin(annotation) in (Union, UnionType) and NoneType in arguments:
        (held,) = (argument for argument in arguments if argument is not NoneType)
        return optional(graphql_type_of(held))
    return annotation


def optional(kind: Any) -> Any:
    """A type or null, whatever the type is made of."""
    return Optional[kind]  # noqa: UP045


def list_of(kind: Any) -> Any:
    """A list of a type, whatever the type is made of."""
    return list[kind]


def register_type(
    *classes: type,
    implements: tuple[type[Row], ...] = (),
    name: str | None = None,
    only: Collection[str] | None = None,
    renamed: dict[str, str] | None = None,
    descriptions: dict[str, str] | None = None,
) -> None:
    """Make GraphQL types of classes and of what they hold; an abstract row class becomes an interface.

    `only` names the members that are published, all by default; `renamed` gives references another name and
    `descriptions` another text.
    """
    for cls in classes:
        if DEFINITION in vars(cls):
            continue
        if issubclass(cls, Enum):
            _publish_enum(cls)
            continue
        held = [member for member in members(cls) if only is None or member.name in only]
        register_type(*(inner for member in held for inner in _held(member.type)))
        fields = {member.name: (graphql_type_of(member.type), _stored(member)) for member in held}
        if issubclass(cls, Row) and only is None:
            for reference in references(cls):
                text = (descriptions or {}).get(reference.name, reference.doc)
                field = _target(reference), _followed(reference._replace(doc=text))
                fields[(renamed or {}).get(reference.name, reference.name)] = field
        _attach_definition(cls, name or cls.__name__, fields, implements)


def _stored(member: Member) -> Any:
    return strawberry.field(description=member.doc, metadata={"stored": member.name, "needs": (member.name,)})


def _publish_enum(cls: type[Enum]) -> None:
    strawberry.enum(cls, description=description_of(cls))
    definition = cast("StrawberryEnumDefinition", getattr(cls, DEFINITION))
    docs = texts(cls)
    for value in definition.values:
        value.description = docs.get(value.name)


def _held(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel | Enum) or dataclasses.is_dataclass(annotation)
    ):
        yield annotation
    for argument in get_args(annotation):
        yield from _held(argument)


def _attach_definition(
    cls: type, name: str, fields: dict[str, tuple[Any, Any]], implements: tuple[type[Row], ...]
) -> None:
    """Have Strawberry define a stand-in, and move the definition to the class itself."""
    is_interface = issubclass(cls, Row) and cls not in tables(cls)
    make = strawberry.interface if is_interface else strawberry.type
    stand_in = make(class_of(name, (), fields, __module__=cls.__module__), name=name, description=description_of(cls))
    definition = definition_of(stand_in)
    definition.origin = cls
    definition.interfaces = [definition_of(interface) for interface in implements]
    definition.is_type_of = None if is_interface else functools.partial(_is_a, cls)
    definition.resolve_type = _name_of if is_interface else None
    setattr(cls, DEFINITION, definition)


def _is_a(cls: type, value: object, _: object) -> bool:
    return isinstance(value, cls)


def _name_of(value: object, *_: object) -> str:
    return definition_of(type(value)).name


def implementing(interface: type[Row]) -> list[type[Row]]:
    """The published rows of an interface."""
    published = [row for row in tables(interface) if DEFINITION in vars(row)]
    return [row for row in published if definition_of(interface) in definition_of(row).interfaces]


def definition_of(cls: type) -> StrawberryObjectDefinition:
    """The GraphQL type that a published class is."""
    return cast("StrawberryObjectDefinition", getattr(cls, DEFINITION))


def _target(reference: Reference) -> Any:
    return optional(reference.target) if reference.optional else reference.target


def _followed(reference: Reference) -> Any:
    """The row behind a key, loaded together with all that are asked for at the same time."""

    async def follow(root: Any, info: strawberry.Info[Any, Any]) -> Any:
        return await info.context.load(info, reference.target, getattr(root, reference.key))

    follow.__annotations__ |= {"root": Root, "return": _target(reference)}
    lookup = ReferenceLookup(reference.target, reference.key)
    metadata = {"reference": reference, "lookup": lookup, "needs": (reference.key,)}
    return strawberry.field(follow, description=reference.doc, metadata=metadata)


def reference_field(target: type[Row], key: str) -> Callable[[F], F]:
    """A field that has nothing but the row behind a key of its object."""
    metadata = {"lookup": ReferenceLookup(target, key)}

    def make(resolver: F) -> F:
        return cast("F", _added(resolver, metadata))

    return make


def extends(
    row: type[Base],
    *,
    name: str | None = None,
    needs: Collection[str] | None = None,
    lookup: ReferenceLookup | None = None,
    held: str | None = None,
    size: int | None = None,
) -> Callable[[F], F]:
    """Give a row a field that no column holds; what an interface gets its types get as well, unless they have it.

    `needs` names the columns that the resolver reads: every column unless given. `lookup` says that the resolver does
    nothing but follow a key, which can be done for many objects at once without it; `held` names an attribute that has
    the answer unless it is null. `size` is that of a page unless a client says how large it is to be.
    """
    metadata = {"needs": needs, "lookup": lookup, "held": held, "size": size}

    def add(resolver: F) -> F:
        add_field(row, name or resolver.__name__, lambda: _added(resolver, metadata))
        return resolver

    return add


def computes(row: type[Base], *, needs: Collection[str]) -> Callable[[C], C]:
    """Give a row a field that is computed, at once, of these columns and what the context knows."""

    def add(compute: C) -> C:
        def resolve(root: Any, info: strawberry.Info[Any, Any]) -> Any:
            return compute(root, info.context)

        resolve.__doc__ = compute.__doc__
        resolve.__annotations__ |= {"root": Root, "return": get_type_hints(compute)["return"]}
        metadata = {"needs": needs, "computed": compute}
        add_field(row, compute.__name__, lambda: _added(resolve, metadata))
        return compute

    return add


def _added(resolver: Callable[..., Any], metadata: dict[Any, Any]) -> Any:
    return strawberry.field(resolver, description=description_of(resolver), metadata=metadata)


def add_field(row: type[Base], name: str, make: Callable[[], StrawberryField]) -> None:
    """Give a row a field, and the rows below it unless they have one of this name."""
    below = [table for table in tables(row) if table is not row]
    for cls in (row, *(table for table in below if not has_field(table, name))):
        field = make()
        field.python_name = name
        definition = definition_of(cls)
        definition.fields = [*(known for known in definition.fields if known.python_name != name), field]


def has_field(cls: type, name: str) -> bool:
    """Whether the GraphQL type of a class has a field of this Python name."""
    return any(field.python_name == name for field in definition_of(cls).fields)


def class_of(name: str, bases: tuple[Any, ...], fields: dict[str, tuple[Any, Any]], **namespace: Any) -> type:
    """A class with these annotated fields, as if it had been written down."""
    annotations = {name: annotation for name, (annotation, _) in fields.items()}
    body = {name: field for name, (_, field) in fields.items()} | namespace | {"__annotations__": annotations}
    return new_class(name, bases, exec_body=lambda empty: empty.update(body))


@dataclasses.dataclass(frozen=True)
class DeferredType(LazyType[Any, Any]):
    """A type that is made when the schema is, so that types can name each other."""

    make: Callable[[], type] = lambda: NoneType

    def resolve_type(self) -> type:
        """Make it."""
        return self.make()


def lazy_type(name: str, make: Callable[[], type]) -> Any:
    """A type of this name that is made when the schema is."""
    return DeferredType(name, __name__, None, make)
