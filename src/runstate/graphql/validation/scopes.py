"""What an operation needs to be allowed: declared on the fields of `Mutation`, found out once for a document."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLSchema,
    InlineFragmentNode,
    OperationType,
    SelectionSetNode,
)

from runstate.core.access.credentials import Principal
from runstate.documents.access import Scope
from runstate.errors import Forbidden
from runstate.graphql.execution.executor import metadata
from runstate.graphql.types.fields import NEEDS

IN_ORDER: Final = list(Scope)


Fragments = Mapping[str, FragmentDefinitionNode]


def needed(schema: GraphQLSchema, kind: OperationType, names: Collection[str]) -> Scope:
    """What an operation with these root fields needs: what the most demanding of them does, included or skipped.

    What is below them needs nothing more. A field of `Mutation` that says nothing needs everything.
    """
    if kind is not OperationType.MUTATION or schema.mutation_type is None:
        return Scope.READ
    known = schema.mutation_type.fields
    scopes = [metadata(known[name]).get(NEEDS, Scope.ADMIN) for name in names if name in known]
    return max(scopes, key=IN_ORDER.index, default=Scope.PROPOSE)


def check(needs: Scope, principal: Principal) -> None:
    """Forbidden: somebody may not do what needs a scope."""
    if needs not in principal.scopes:
        allowed = max(principal.scopes, key=IN_ORDER.index, default="nothing")
        raise Forbidden(f"This needs the scope `{needs}`; {principal.name} has `{allowed}`.")


def root_fields(selected: SelectionSetNode, fragments: Fragments) -> Iterator[str]:
    """The names of fields that are selected, in fragments too."""
    waiting, seen = [selected], set[str]()
    while waiting:
        for node in waiting.pop().selections:
            if isinstance(node, FieldNode):
                yield node.name.value
            elif isinstance(node, InlineFragmentNode):
                waiting.append(node.selection_set)
            elif isinstance(node, FragmentSpreadNode) and node.name.value in fragments.keys() - seen:
                seen.add(node.name.value)
                waiting.append(fragments[node.name.value].selection_set)
