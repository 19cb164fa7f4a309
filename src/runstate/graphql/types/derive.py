"""GraphQL types derived from the classes that hold the data.

A row, a document, a dataclass or an enum needs no second declaration: `register_type` takes names, types, nullability
and descriptions from the class. Strawberry finds the GraphQL type of a class in its attribute
`__strawberry_definition__`; this module sets that attribute on the class itself.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from enum import Enum
from functools import partial
from itertools import pairwise
from types import new_class
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    Optional,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

import sqlalchemy as sa
import strawberry
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.enum import StrawberryEnumDefinition
from strawberry.types.field import StrawberryField

from runstate.documents.base import is_kind
from runstate.errors import Id
from runstate.graphql.types.fields import Root, description_of, named
from runstate.graphql.types.input_values import DEFINITION
from runstate.graphql.types.registry import REGISTRY, RegistrationError, Registry
from runstate.graphql.types.unions import is_union, simplified, union_of, variants
from runstate.rows import Base, Row

F = TypeVar("F", bound=Callable[..., Any])
B = TypeVar("B", bound=Base)
C = TypeVar("C", bound="Computed")


class Member(NamedTuple):
    """A value that a class holds."""

    name: str
    type: Any
    doc: str | None
    filterable: bool = True


class Reference(NamedTuple):
    """A row that another row refers to."""

    name: str
    key: str
    target: type[Row]
    optional: bool
    doc: str | None


class ReferenceLookup(NamedTuple):
    """A lookup that resolves a field: the row behind a key of its object."""

    target: type[Row]
    key: str
    others: tuple[type[Row], ...] = ()
    """Further types that the row can have: ids are unique over all types."""


Computed = Callable[[Any, Any], Any]
"""Returns the value of a field for an object and the context; it is not a coroutine."""


def is_row(thing: object) -> bool:
    """Return whether an argument is a row class, and not a type variable."""
    return isinstance(thing, type) and issubclass(thing, Row)


def tables(row: type[B]) -> list[type[B]]:
    """Return the classes with a table of their own: a row class, or its subclasses."""
    if "__table__" in vars(row):
        return [row]
    return [table for below in row.__subclasses__() for table in tables(below)]


def members(cls: type) -> list[Member]:
    """Return the public members of a class in the order of declaration, without the kinds of documents."""
    if issubclass(cls, Base):
        return list(_columns(cls))
    hints = get_type_hints(cls, include_extras=True)
    if issubclass(cls, BaseModel):
        return [
            Member(name, simplified(_annotated(hints[name], field)), field.description)
            for name, field in cls.model_fields.items()
            # The kind is the name of the member in inputs, and the type in answers.
            if not is_kind(field.annotation)
        ]
    docs = texts(cls)
    return [
        Member(field.name, simplified(hints[field.name]), docs.get(field.name))
        for field in dataclasses.fields(cast("Any", cls))
    ]


def _annotated(hint: Any, field: FieldInfo) -> Any:
    """Return the type of a member. The name of a union may be in the `Field` of the member instead of the type."""
    return Annotated[hint, field] if field.discriminator and is_union(hint) else hint


def _columns(row: type[Base]) -> Iterator[Member]:
    # An interface has no table: its members are columns of each of its tables.
    columns = sa.inspect(tables(row)[0]).columns
    for name, hint in get_type_hints(row, include_extras=True).items():
        if name in columns and not (info := columns[name].info).get("private"):
            yield Member(name, simplified(get_args(hint)[0]), columns[name].doc, info.get("filterable", True))


def references(row: type[Row]) -> list[Reference]:
    """Return the references of a row; of an interface, those that all its rows have under the same name."""
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
    """Return the docstrings below the members of an enum or a dataclass, by member."""
    # Python does not keep these docstrings, so they are read from the source.
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
    """Return the GraphQL type of a Python type: a UUID is an id, a tuple a list, a dict is JSON."""
    if union := union_of(annotation):
        return Annotated[annotation.__origin__, strawberry.union(union.name, description=union.description)]
    arguments = variants(annotation)
    if is_union(annotation):
        return optional(graphql_type_of(arguments[0]))
    if get_origin(annotation) in (list, tuple):
        return list_of(graphql_type_of(arguments[0]))
    if get_origin(annotation) is Literal:
        return type(arguments[0])
    if annotation is Any or get_origin(annotation) is dict:
        return strawberry.scalars.JSON
    return OTHER_TYPES.get(annotation, annotation)


OTHER_TYPES: Final[dict[Any, Any]] = {UUID: strawberry.ID, Id: strawberry.ID, timedelta: float}
"""Python types with a different type in GraphQL: a duration is a number of seconds."""


def optional(kind: Any) -> Any:
    """Return the nullable form of a type that is known at run time only."""
    return Optional[kind]  # noqa: UP045


def list_of(kind: Any) -> Any:
    """Return the list of a type that is known at run time only."""
    return list[kind]


class TypeOptions(TypedDict, total=False):
    """Differences of a GraphQL type from its class."""

    implements: tuple[type[Row], ...]
    """Interfaces of the type; none by default."""
    name: str
    """Name of the type; by default that of the class."""
    only: Collection[str]
    """Members of the type; by default all members of the class."""
    renamed: dict[str, str]
    """Names of references that differ from their attributes."""
    descriptions: dict[str, str]
    """Descriptions of references, instead of those of their relationships."""


def register_type(*classes: type, registry: Registry = REGISTRY, **options: Unpack[TypeOptions]) -> None:
    """Define the GraphQL types of classes and of the classes in their members; abstract row classes are interfaces."""
    for cls in classes:
        registry.require_open(cls, f"The GraphQL type of {cls.__name__}")
        # Without options, a class may have been defined already as a member of another one.
        if options and DEFINITION in vars(cls):
            raise RegistrationError(
                f"{cls.__name__} is registered twice. Register it once, before the types that hold it."
            )
        define_type(cls, **options)


def define_type(cls: type, **options: Unpack[TypeOptions]) -> None:
    """Define the GraphQL type of a class and of the classes in its members, unless they have one already."""
    if DEFINITION in vars(cls):
        return
    if issubclass(cls, Enum):
        _publish_enum(cls)
        return
    only = options.get("only")
    stored = [member for member in members(cls) if only is None or member.name in only]
    inner = [each for member in stored for each in _held(member.type)]
    # Enums are defined first: Strawberry defines an undefined enum itself, without descriptions.
    for enum in (each for each in inner if issubclass(each, Enum)):
        define_type(enum)
    fields = {member.name: _stored(cls, member) for member in stored}
    if issubclass(cls, Row) and only is None:
        fields |= _references(cls, options)
    _attach_definition(cls, options.get("name", cls.__name__), fields, options.get("implements", ()))
    # Documents are defined last, since they can contain the class itself.
    for document in inner:
        define_type(document)


def _references(row: type[Row], options: TypeOptions) -> dict[str, tuple[Any, Any]]:
    names, docs = options.get("renamed", {}), options.get("descriptions", {})
    found = [each._replace(doc=docs.get(each.name, each.doc)) for each in references(row)]
    return {names.get(each.name, each.name): (_target(each), _followed(each)) for each in found}


def _stored(cls: type, member: Member) -> tuple[Any, Any]:
    """Return the type and the field of a member."""
    try:
        kind = graphql_type_of(member.type)
    except RegistrationError as error:
        raise RegistrationError(f"{cls.__name__}.{member.name}: {error}") from error
    metadata: dict[Any, Any] = {"stored": member.name, "needs": (member.name,)}
    if timedelta not in (member.type, *variants(member.type)):
        return kind, strawberry.field(name=named(member.name), description=member.doc, metadata=metadata)
    compute = partial(_seconds, member.name)

    def resolve(root: Any) -> Any:
        return compute(root, None)

    resolve.__annotations__ |= {"root": Root, "return": kind}
    return kind, strawberry.field(resolve, description=member.doc, metadata={**metadata, "computed": compute})


def _seconds(name: str, root: Any, _: object) -> float | None:
    interval = getattr(root, name)
    return None if interval is None else interval.total_seconds()


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
    """Let Strawberry define a stand-in, since it makes dataclasses, and move the definition to the class itself."""
    is_interface = issubclass(cls, Row) and cls not in tables(cls)
    make = strawberry.interface if is_interface else strawberry.type
    stand_in = make(class_of(name, (), fields, __module__=cls.__module__), name=name, description=description_of(cls))
    definition = definition_of(stand_in)
    # Answers hold instances of the class, and Strawberry looks for the origin of their type.
    definition.origin = cls
    definition.interfaces = [definition_of(interface) for interface in implements]
    definition.is_type_of = None if is_interface else partial(_is_a, cls)
    definition.resolve_type = _name_of if is_interface else None
    setattr(cls, DEFINITION, definition)


def _is_a(cls: type, value: object, _: object) -> bool:
    return isinstance(value, cls)


def _name_of(value: object, *_: object) -> str:
    return definition_of(type(value)).name


def implementing(interface: type[Row]) -> list[type[Row]]:
    """Return the registered rows that implement an interface."""
    published = [row for row in tables(interface) if DEFINITION in vars(row)]
    return [row for row in published if definition_of(interface) in definition_of(row).interfaces]


def definition_of(cls: type) -> StrawberryObjectDefinition:
    """Return Strawberry's definition of a registered class."""
    return cast("StrawberryObjectDefinition", getattr(cls, DEFINITION))


def _target(reference: Reference) -> Any:
    return optional(reference.target) if reference.optional else reference.target


def _followed(reference: Reference) -> Any:
    """Return the field for the row behind a key. Rows that are requested at the same time are loaded together."""

    async def follow(root: Any, info: strawberry.Info[Any, Any]) -> Any:
        return await info.context.load(info, reference.target, getattr(root, reference.key))

    # Strawberry reads types from annotations; these are known at run time only.
    follow.__annotations__ |= {"root": Root, "return": _target(reference)}
    lookup = ReferenceLookup(reference.target, reference.key)
    metadata = {"reference": reference, "lookup": lookup, "needs": (reference.key,)}
    return strawberry.field(follow, description=reference.doc, metadata=metadata)


def reference_field(target: type[Row], key: str) -> Callable[[F], F]:
    """Return a decorator for fields that resolve to the row behind a key of their object."""
    metadata = {"lookup": ReferenceLookup(target, key)}

    def make(resolver: F) -> F:
        return cast("F", _added(resolver, metadata))

    return make


def extends(  # noqa: PLR0913 each says something else about the field
    row: type[Base],
    *,
    name: str | None = None,
    needs: Collection[str] | None = None,
    lookup: ReferenceLookup | None = None,
    held: str | None = None,
    size: int | None = None,
    count: Any = None,
    condition: Any = None,
    parses: bool = False,
) -> Callable[[F], F]:
    """Return a decorator that adds a field without a column to a row.

    The types of an interface get the field too, unless they have one of this name. `needs` names the columns that the
    resolver reads, by default all. `lookup` declares that the resolver only follows a key: plans then read the rows of
    many objects together and do not call it. `held` names an attribute with the value; the resolver is called if it is
    null. `size` is the default size of a page. `count` declares that the value is the number of these rows (`HasMany`).
    `condition` declares that the value is a list of these rows (`HasMany`), and makes it a member of the filter.
    `parses` declares that the resolver takes JSON as it is stored: the values of one row are parsed at a time.
    """
    metadata = {"needs": needs, "lookup": lookup, "held": held, "size": size, "count": count}
    metadata |= {"condition": condition, "parses": parses}

    def add(resolver: F) -> F:
        add_field(row, name or resolver.__name__, lambda: _added(resolver, metadata))
        return resolver

    return add


def computes(row: type[Base], *, needs: Collection[str], parses: bool = False) -> Callable[[C], C]:
    """Return a decorator that adds a field to a row, computed from these columns and the context without awaiting."""

    def add(compute: C) -> C:
        def resolve(root: Any, info: strawberry.Info[Any, Any]) -> Any:
            return compute(root, info.context)

        resolve.__doc__ = compute.__doc__
        resolve.__annotations__ |= {"root": Root, "return": get_type_hints(compute)["return"]}
        metadata = {"needs": needs, "computed": compute, "parses": parses}
        add_field(row, compute.__name__, lambda: _added(resolve, metadata))
        return compute

    return add


def _added(resolver: Callable[..., Any], metadata: dict[Any, Any]) -> Any:
    return strawberry.field(resolver, description=description_of(resolver), metadata=metadata)


def add_field(row: type[Base], name: str, make: Callable[[], StrawberryField], registry: Registry = REGISTRY) -> None:
    """Add a field to a row, and to those of its subclasses with a table that have no field of this name."""
    below = [table for table in tables(row) if table is not row]
    for cls in (row, *(table for table in below if not has_field(table, name))):
        registry.require_open(cls, f"The field {cls.__name__}.{name}")
        # A field of its own for each class: Strawberry writes into it.
        field = make()
        field.python_name = name
        # A field of a type itself replaces the one from its interface.
        definition = definition_of(cls)
        definition.fields = [*(known for known in definition.fields if known.python_name != name), field]


def has_field(cls: type, name: str) -> bool:
    """Return whether the GraphQL type of a class has a field with this Python name."""
    return any(field.python_name == name for field in definition_of(cls).fields)


def class_of(name: str, bases: tuple[Any, ...], fields: dict[str, tuple[Any, Any]], **namespace: Any) -> type:
    """Return a class with these annotated fields. Raise RegistrationError if a base has an attribute of that name."""
    if taken := [field for field in fields if any(hasattr(base, field) for base in bases)]:
        raise RegistrationError(
            f"{name} cannot have the member {taken[0]}: {bases[0].__name__} has an attribute {taken[0]}."
        )
    annotations = {name: annotation for name, (annotation, _) in fields.items()}
    body = {name: field for name, (_, field) in fields.items()} | namespace | {"__annotations__": annotations}
    # Unlike type(), new_class() accepts generic bases.
    return new_class(name, bases, exec_body=lambda empty: empty.update(body))
