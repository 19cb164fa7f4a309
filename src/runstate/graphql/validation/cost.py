"""How much a document asks for: one walk that visits each fragment once, however often it is spread.

What depends on variables, the numbers of objects on pages, stays a function of them; everything else is a number when
the document is met for the first time.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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

from runstate.graphql.execution.executor import metadata
from runstate.graphql.pagination.keyset import DEFAULT_SIZE

SUPPOSED_SIZE: Final = 10
"""How many objects a list is supposed to have whose length nobody has said."""

LARGEST_PAGE: Final = 1_000
ENDLESS: Final = 10**12
"""As large as any number gets here: fragments that spread each other twice would go beyond all limits."""

PAGED_BY: Final = ("first", "last")
ITEMS: Final = ("nodes", "edges")


class VariableValues:
    """The variables of one request, and what was worked out with them."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self.variables = variables
        self.known: dict[int, int] = {}


Amount = int | Callable[[VariableValues], int]
"""A number, or what it is with the variables of a request."""


class SelectionCost(NamedTuple):
    """How much a selection asks for."""

    fields: int = 0
    depth: int = 0
    aliases: int = 0
    directives: int = 0
    items: int = 0
    """Of the longest list that is written into it."""
    fixed: Amount = 0
    """How many objects it answers with."""
    each: Amount = 0
    """How many more for each object on the page whose `nodes` or `edges` it selects."""


NOTHING: Final = SelectionCost()


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of amounts."""
    fixed, open_ones = 0, list[Callable[[VariableValues], int]]()
    for amount in amounts:
        if isinstance(amount, int):
            fixed += amount
        else:
            open_ones.append(amount)
    if not open_ones:
        return min(fixed, ENDLESS)
    return lambda given: min(fixed + sum(amount(given) for amount in open_ones), ENDLESS)


def times(size: Amount, amount: Amount) -> Amount:
    """An amount so many times."""
    if isinstance(size, int) and isinstance(amount, int):
        return min(size * amount, ENDLESS)
    return lambda given: min(evaluated(size, given) * evaluated(amount, given), ENDLESS)


def evaluated(amount: Amount, given: VariableValues) -> int:
    """The number that an amount is."""
    return amount if isinstance(amount, int) else amount(given)


def kept(amount: Amount) -> Amount:
    """An amount that is worked out fixed with the variables of a request, however often it is asked for."""
    if isinstance(amount, int):
        return amount

    def look_up(given: VariableValues) -> int:
        if id(amount) not in given.known:
            given.known[id(amount)] = amount(given)
        return given.known[id(amount)]

    return look_up


def together(extents: Sequence[SelectionCost]) -> SelectionCost:
    """What selections beside each other ask for."""
    if not extents:
        return NOTHING
    fields, depths, aliases, directives, items, fixed, each = zip(*extents, strict=True)
    return SelectionCost(
        min(sum(fields), ENDLESS),
        max(depths),
        min(sum(aliases), ENDLESS),
        min(sum(directives), ENDLESS),
        max(items),
        total(fixed),
        total(each),
    )


class CostVisitor:
    """One walk over a document. What does not fit the schema counts too; it is refused by others."""

    def __init__(self, schema: GraphQLSchema, paged: Collection[str], document: DocumentNode) -> None:
        self.schema = schema
        self.paged = paged
        definitions = document.definitions
        self.fragments = {each.name.value: each for each in definitions if isinstance(each, FragmentDefinitionNode)}
        self.known: dict[str, SelectionCost] = {}

    def operation(self, definition: OperationDefinitionNode) -> SelectionCost:
        """How much an operation asks for."""
        extent = self._selected(definition.selection_set, self.schema.get_root_type(definition.operation))
        used = [definition.directives, *(each.directives for each in definition.variable_definitions or ())]
        return extent._replace(directives=extent.directives + sum(len(each or ()) for each in used))

    def _selected(self, selected: SelectionSetNode, kind: GraphQLNamedType | None) -> SelectionCost:
        return together([self._selection(each, kind) for each in selected.selections])

    def _selection(self, node: SelectionNode, kind: GraphQLNamedType | None) -> SelectionCost:
        if isinstance(node, FieldNode):
            extent = self._field(node, kind)
        elif isinstance(node, FragmentSpreadNode):
            extent = self._fragment(node.name.value)
        else:
            extent = self._on(cast("InlineFragmentNode", node), kind)
        used = len(node.directives or ())
        return extent._replace(directives=extent.directives + used) if used else extent

    def _fragment(self, name: str) -> SelectionCost:
        if name not in self.known and name in self.fragments:
            self.known[name] = NOTHING  # while it is looked at: one that spreads itself is refused elsewhere
            extent = self._on(self.fragments[name], None)
            self.known[name] = extent._replace(fixed=kept(extent.fixed), each=kept(extent.each))
        return self.known.get(name, NOTHING)

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
        )


def _objects(node: FieldNode, field: GraphQLField | None, inner: SelectionCost, *, item: bool) -> Amount:
    """How many objects a field answers with, those below included; an edge is no object besides its node."""
    if item:
        return total((node.name.value != "edges", inner.fixed, inner.each))
    if field and is_paged(field):
        return total((1, inner.fixed, times(size(node, field), inner.each)))
    one = total((1, inner.fixed, inner.each))
    return times(size(node, field), one) if field and is_list(field) else one


def is_list(field: GraphQLField) -> bool:
    """Whether a field answers with a list."""
    return isinstance(get_nullable_type(field.type), GraphQLList)


def is_paged(field: GraphQLField) -> bool:
    """Whether a field answers with an object that holds a page."""
    return not is_list(field) and any(name in field.args for name in PAGED_BY)


def paged_types(schema: GraphQLSchema) -> frozenset[str]:
    """The types that hold a page."""
    kinds = [kind for kind in schema.type_map.values() if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)]
    fields = [field for kind in kinds for field in kind.fields.values()]
    return frozenset(get_named_type(field.type).name for field in fields if is_paged(field))


def size(node: FieldNode, field: GraphQLField) -> Amount:
    """How many objects a list or a page has at most."""
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    if any(name in field.args for name in PAGED_BY):
        unless_given = int(metadata(field).get("size") or _default(field) or DEFAULT_SIZE)
        said = [given[name] for name in PAGED_BY if name in given]
        return _page(said, unless_given)
    listed = [
        name for name, argument in field.args.items() if isinstance(get_nullable_type(argument.type), GraphQLList)
    ]
    return next((_length(given[name]) for name in listed if name in given), SUPPOSED_SIZE)


def _default(field: GraphQLField) -> int | None:
    """Return the size of a page that the schema names as the default."""
    defaults = [field.args[name].default_value for name in PAGED_BY if name in field.args]
    return next((each for each in defaults if isinstance(each, int)), None)


def _page(said: list[ValueNode], unless_given: int) -> Amount:
    """The size of a page, from what is said of it."""
    if any(isinstance(each, VariableNode) for each in said):
        return lambda given: _page_of([_value(each, given) for each in said], unless_given)
    return _page_of([_value(each, NO_VARIABLES) for each in said], unless_given)


def _page_of(said: list[Any], unless_given: int) -> int:
    known = [each for each in said if isinstance(each, int)]
    return max(0, min(max(known, default=unless_given), LARGEST_PAGE))


def _length(said: ValueNode) -> Amount:
    """The length of a list that is an argument."""
    if isinstance(said, VariableNode):
        return lambda given: len(_value(said, given) or ())
    return len(said.values) if isinstance(said, ListValueNode) else 1


def _value(node: ValueNode, given: VariableValues) -> Any:
    if isinstance(node, VariableNode):
        return given.variables.get(node.name.value)
    return int(node.value) if isinstance(node, IntValueNode) else None


def longest(value: ValueNode) -> int:
    """How many values the longest list holds that is written into a value."""
    if isinstance(value, ListValueNode):
        return max([len(value.values), *map(longest, value.values)])
    if isinstance(value, ObjectValueNode):
        return max([0, *(longest(field.value) for field in value.fields)])
    return 0


NO_VARIABLES: Final = VariableValues({})
