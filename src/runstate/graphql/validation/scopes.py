"""Scopes that operations need. Fields declare them; the visitor that computes the cost of a document collects them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from graphql import GraphQLField, GraphQLInterfaceType, GraphQLNamedType, GraphQLObjectType, GraphQLSchema
from strawberry.types.graphql import OperationType

from runstate.core.access.credentials import Principal
from runstate.documents.access import Scope, included
from runstate.errors import Forbidden
from runstate.graphql.types.fields import DEFINED_BY, NEEDS, metadata

FieldScopes = Mapping[tuple[str, str], frozenset[Scope]]
"""Scopes that fields need, by type and field. Fields that need none are omitted."""

NO_SCOPES: Final = frozenset[Scope]()

ROOT_SCOPES: Final = {
    OperationType.QUERY: frozenset({Scope.READ}),
    OperationType.SUBSCRIPTION: frozenset({Scope.READ}),
    OperationType.MUTATION: frozenset({Scope.PROPOSE}),
}
"""Scopes that an operation needs regardless of its fields."""


def field_scopes(schema: GraphQLSchema) -> FieldScopes:
    """Return the scopes that the fields of a schema need.

    A field of an interface also needs the scopes of that field in all types with the interface, since the document does
    not decide which type answers. A field of `Mutation` without a scope needs `admin`.
    """
    kinds = [kind for kind in schema.type_map.values() if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)]
    needed = {(kind.name, name): _needed(schema, kind, name) for kind in kinds for name in kind.fields}
    return {key: scopes for key, scopes in needed.items() if scopes}


def _needed(schema: GraphQLSchema, kind: GraphQLObjectType | GraphQLInterfaceType, name: str) -> frozenset[Scope]:
    kinds = [kind]
    if isinstance(kind, GraphQLInterfaceType):
        kinds += schema.get_possible_types(kind)
    # A mutation that declares no scope must not be open by mistake.
    default = Scope.ADMIN if kind is schema.mutation_type else None
    return frozenset(scope for each in kinds if (scope := _declared(each, each.fields[name]) or default))


def _declared(kind: GraphQLObjectType | GraphQLInterfaceType, field: GraphQLField) -> Scope | None:
    """Return the scope that a field declares, or else the scope of its column."""
    declared = metadata(field)
    table = getattr(kind.extensions[DEFINED_BY].origin, "__table__", None) if "stored" in declared else None
    info = {} if table is None else table.c[declared["stored"]].info
    return declared.get(NEEDS) or info.get(NEEDS)


def scopes_of(scopes: FieldScopes, owner: GraphQLNamedType | None, name: str) -> frozenset[Scope]:
    """Return the scopes that a field of a type needs."""
    return scopes.get((owner.name, name), NO_SCOPES) if owner else NO_SCOPES


def check(needed: frozenset[Scope], principal: Principal) -> None:
    """Raise Forbidden if a principal lacks a scope that an operation needs."""
    missing = needed - principal.scopes
    if missing:
        raise Forbidden(f"This needs the scope {_listed(missing)}; {principal.name} has {_listed(principal.scopes)}.")


def _listed(scopes: Collection[Scope]) -> str:
    return ", ".join(f"`{scope}`" for scope in sorted(_highest(scopes))) or "`nothing`"


def _highest(scopes: Collection[Scope]) -> Iterable[Scope]:
    """Return the scopes that are not included in another one."""
    return (each for each in scopes if not any(each in included([other]) for other in scopes if other != each))
