"""The cost and the scopes of a document, computed in one walk that visits each fragment once.

The numbers of objects on pages can depend on variables, so they are functions of the variables. Everything else is a
number.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    type_from_ast,
)

from runstate.documents.access import Scope
from runstate.graphql.pagination.keyset import DEFAULT_SIZE
from runstate.graphql.types.fields import metadata
from runstate.graphql.validation.scopes import NO_SCOPES, FieldScopes, scopes_of

ASSUMED_SIZE: Final = 10
"""Number of objects in a list whose length no argument bounds."""

LARGEST_PAGE: Final = 1_000
MAX_AMOUNT: Final = 10**12
"""Cap of every number here: fragments that spread each other twice grow exponentially."""

MOST_DIGITS: Final = 12
"""Digits of a number that are read: a longer one is larger than any page."""
PAGE_SIZES: Final = ("first", "last")
"""Arguments that hold the size of a page."""
ITEMS: Final = ("nodes", "edges")
"""Fields of a connection with one object for each row on the page."""


class VariableValues:
    """The variables of one request, as a client sent them, and the amounts that were evaluated with them."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self.variables = variables
        self.amounts: dict[int, int] = {}


Amount = int | Callable[[VariableValues], int]
"""A number, or a function of the variables of a request."""


class SelectionCost(NamedTuple):
    """The cost of a selection, and the scopes it needs."""

    fields: int = 0
    depth: int = 0
    aliases: int = 0
    directives: int = 0
    items: int = 0
    """Length of the longest list literal."""
    fixed: Amount = 0
    """Number of objects in the answer."""
    each: Amount = 0
    """Number of further objects for each row on the page whose `nodes` or `edges` are selected."""
    scopes: frozenset[Scope] = NO_SCOPES


NOTHING: Final = SelectionCost()


def total(amounts: Iterable[Amount]) -> Amount:
    """Return the sum of amounts."""
    fixed, variable = 0, list[Callable[[VariableValues], int]]()
    for amount in amounts:
        if isinstance(amount, int):
            fixed += amount
        else:
            variable.append(amount)
    if not variable:
        return min(fixed, MAX_AMOUNT)
    # A function, so that a cached document is not visited again for other variables.
    return lambda values: min(fixed + sum(amount(values) for amount in variable), MAX_AMOUNT)


def times(size: Amount, amount: Amount) -> Amount:
    """Return the product of a size and an amount."""
    if isinstance(size, int) and isinstance(amount, int):
        return min(size * amount, MAX_AMOUNT)
    return lambda values: min(evaluated(size, values) * evaluated(amount, values), MAX_AMOUNT)


def evaluated(amount: Amount, values: VariableValues) -> int:
    """Return an amount as a number."""
    return amount if isinstance(amount, int) else amount(values)


def memoized(amount: Amount) -> Amount:
    """Return an amount that is evaluated once for the variables of a request, however often it is used."""
    if isinstance(amount, int):
        return amount

    def look_up(values: VariableValues) -> int:
        # Amounts live as long as their document, so their ids are unique during a request.
        if id(amount) not in values.amounts:
            values.amounts[id(amount)] = amount(values)
        return values.amounts[id(amount)]

    return look_up


def together(costs: Sequence[SelectionCost]) -> SelectionCost:
    """Return the cost of selections beside each other."""
    if not costs:
        return NOTHING
    fields, depths, aliases, directives, items, fixed, each, scopes = zip(*costs, strict=True)
    return SelectionCost(
        min(sum(fields), MAX_AMOUNT),
        max(depths),
        min(sum(aliases), MAX_AMOUNT),
        min(sum(directives), MAX_AMOUNT),
        max(items),
        total(fixed),
        total(each),
        NO_SCOPES.union(*scopes),
    )


class CostVisitor:
    """Computes the costs of a document. Unknown fields count, too; validation rejects them."""

    def __init__(
        self, schema: GraphQLSchema, paged: Collection[str], scopes: FieldScopes, document: DocumentNode
    ) -> None:
        self.schema = schema
        self.paged = paged
        self.scopes = scopes
        definitions = document.definitions
        self.fragments = {each.name.value: each for each in definitions if isinstance(each, FragmentDefinitionNode)}
        self.costs: dict[str, SelectionCost] = {}
        """Costs of fragments, by name."""

    def operation(self, definition: OperationDefinitionNode) -> SelectionCost:
        """Return the cost of an operation."""
        cost = self._selected(definition.selection_set, self.schema.get_root_type(definition.operation))
        used = [definition.directives, *(each.directives for each in definition.variable_definitions or ())]
        return cost._replace(directives=cost.directives + sum(len(each or ()) for each in used))

    def _selected(self, selected: SelectionSetNode, kind: GraphQLNamedType | None) -> SelectionCost:
        return together([self._selection(each, kind) for each in selected.selections])

    def _selection(self, node: SelectionNode, kind: GraphQLNamedType | None) -> SelectionCost:
        if isinstance(node, FieldNode):
            cost = self._field(node, kind)
        elif isinstance(node, FragmentSpreadNode):
            cost = self._fragment(node.name.value)
        else:
            cost = self._on(cast("InlineFragmentNode", node), kind)
        used = len(node.directives or ())
        return cost._replace(directives=cost.directives + used) if used else cost

    def _fragment(self, name: str) -> SelectionCost:
        if name not in self.costs and name in self.fragments:
            self.costs[name] = NOTHING  # ends the recursion of a fragment that spreads itself; validation rejects it
            cost = self._on(self.fragments[name], None)
            # A fragment that is spread many times is evaluated once for a request.
            self.costs[name] = cost._replace(fixed=memoized(cost.fixed), each=memoized(cost.each))
        return self.costs.get(name, NOTHING)

    def _on(self, node: InlineFragmentNode | FragmentDefinitionNode, kind: GraphQLNamedType | None) -> SelectionCost:
        named = node.type_condition
        return self._selected(node.selection_set, type_from_ast(self.schema, named) if named else kind)

    def _field(self, node: FieldNode, owner: GraphQLNamedType | None) -> SelectionCost:
        field = self.schema.get_field(cast("Any", owner), node.name.value) if is_composite_type(owner) else None
        selected = node.selection_set
        inner = self._selected(selected, get_named_type(field.type) if field else None) if selected else NOTHING
        item = bool(owner and owner.name in self.paged and node.name.value in ITEMS)
        objects = _objects(node, field, inner, item=item) if selected else int(bool(field and field.args))
        return SelectionCost(
            fields=1,
            depth=inner.depth + 1,
            aliases=inner.aliases + (node.alias is not None),
            directives=inner.directives,
            items=max([inner.items, *(longest(each.value) for each in node.arguments or ())]),
            fixed=0 if item else objects,
            each=objects if item else 0,
            scopes=inner.scopes | scopes_of(self.scopes, owner, node.name.value),
        )


def _objects(node: FieldNode, field: GraphQLField | None, inner: SelectionCost, *, item: bool) -> Amount:
    """Return the number of objects in the value of a field, at all levels. An edge and its node count as one."""
    if item:
        return total((node.name.value != "edges", inner.fixed, inner.each))
    if field and is_paged(field):
        return total((1, inner.fixed, times(size(node, field), inner.each)))
    one = total((1, inner.fixed, inner.each))
    return times(size(node, field), one) if field and is_list(field) else one


def is_list(field: GraphQLField) -> bool:
    """Return whether the value of a field is a list."""
    return isinstance(get_nullable_type(field.type), GraphQLList)


def is_paged(field: GraphQLField) -> bool:
    """Return whether the value of a field is an object that holds a page."""
    return not is_list(field) and any(name in field.args for name in PAGE_SIZES)


def paged_types(schema: GraphQLSchema) -> frozenset[str]:
    """Return the names of the types that hold a page."""
    kinds = [kind for kind in schema.type_map.values() if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)]
    fields = [field for kind in kinds for field in kind.fields.values()]
    return frozenset(get_named_type(field.type).name for field in fields if is_paged(field))


def size(node: FieldNode, field: GraphQLField) -> Amount:
    """Return the largest number of objects in a list or on a page."""
    arguments = {argument.name.value: argument.value for argument in node.arguments or ()}
    if any(name in field.args for name in PAGE_SIZES):
        default = int(metadata(field).get("size") or _default_size(field) or DEFAULT_SIZE)
        return _page_size([arguments[name] for name in PAGE_SIZES if name in arguments], default)
    lists = [name for name, argument in field.args.items() if isinstance(get_nullable_type(argument.type), GraphQLList)]
    return next((_length(arguments[name]) for name in lists if name in arguments), ASSUMED_SIZE)


def _default_size(field: GraphQLField) -> int | None:
    """Return the default size of a page in the schema; None if it has none."""
    defaults = [field.args[name].default_value for name in PAGE_SIZES if name in field.args]
    return next((each for each in defaults if isinstance(each, int)), None)


def _page_size(sizes: list[ValueNode], default: int) -> Amount:
    if any(isinstance(each, VariableNode) for each in sizes):
        return lambda values: _largest([_value(each, values) for each in sizes], default)
    return _largest([_value(each, NO_VARIABLES) for each in sizes], default)


def _largest(sizes: list[Any], default: int) -> int:
    # 5.0 is an Int for GraphQL too.
    numbers = [int(each) for each in sizes if isinstance(each, int | float) and isfinite(each)]
    return max(0, min(max(numbers, default=default), LARGEST_PAGE))


def _length(argument: ValueNode) -> Amount:
    """Return the length of a list in an argument; GraphQL takes a single value for a list of one."""
    if isinstance(argument, VariableNode):
        return lambda values: _length_of(_value(argument, values))
    return len(argument.values) if isinstance(argument, ListValueNode) else 1


def _length_of(value: Any) -> int:
    return len(value) if isinstance(value, list) else int(value is not None)


def _value(node: ValueNode, values: VariableValues) -> Any:
    if isinstance(node, VariableNode):
        return values.variables.get(node.name.value)
    # Python reads long integers in quadratic time.
    return int(node.value[:MOST_DIGITS]) if isinstance(node, IntValueNode) else None


def longest(value: ValueNode) -> int:
    """Return the length of the longest list literal in a value."""
    if isinstance(value, ListValueNode):
        return max([len(value.values), *map(longest, value.values)])
    if isinstance(value, ObjectValueNode):
        return max([0, *(longest(field.value) for field in value.fields)])
    return 0


NO_VARIABLES: Final = VariableValues({})
