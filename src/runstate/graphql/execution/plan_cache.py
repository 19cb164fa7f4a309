"""Plans of operations, cached as long as their documents."""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from graphql import DirectiveNode, FragmentSpreadNode, SelectionSetNode, VariableNode
from graphql.execution.collect_fields import CollectedFields, FragmentDetails, GroupedFieldSet

from runstate.graphql.execution.fallbacks import Fallbacks
from runstate.graphql.execution.plans import Plan
from runstate.graphql.execution.related_plans import ConnectionPlan

CONDITIONS: Final = ("skip", "include")
INCREMENTAL: Final = ("defer", "stream")

MAX_PLANS: Final = 64
"""Largest number of sets of plans that are cached for one operation: one for each set of conditions."""


class OperationPlans:
    """The collected fields of an operation under one set of conditions, and their plans."""

    def __init__(self, *, complete: bool = True) -> None:
        self.complete = complete
        """Whether the answer comes in one piece. Otherwise nothing is planned."""
        self.root: CollectedFields | None = None
        self.sub_fields: dict[Any, Any] = {}
        # Selections are kept with their plans, so that no other selection gets their id.
        self.plans: dict[int, tuple[GroupedFieldSet, Plan]] = {}
        self.connections: dict[int, tuple[GroupedFieldSet, ConnectionPlan | None]] = {}


class CachedOperation(NamedTuple):
    """The plans of an operation, by the values of the variables that decide which fields are included."""

    alive: weakref.ref[Any]
    conditions: tuple[str, ...] | None
    """Names of these variables; None if parts of the answer are delivered later."""
    plans: dict[Any, OperationPlans]


class PlanCache:
    """The plans of one schema."""

    def __init__(self) -> None:
        self.operations: dict[int, CachedOperation] = {}
        """Operations by the id of their node, while it is alive. The hash of a node would visit all nodes below it."""
        self.fallbacks = Fallbacks()

    def plans_of(self, executor: Any) -> OperationPlans:
        """Return the plans of the operation that is executed."""
        # Fields of a fragment with arguments can differ for each spread.
        if any(fragment.variable_signatures for fragment in executor.fragments.values()):
            return OperationPlans()
        cached = self.operations.get(id(executor.operation)) or self._add(executor)
        if cached.conditions is None:
            return OperationPlans(complete=False)
        values = executor.variable_values.coerced
        key = tuple(values.get(name) for name in cached.conditions)
        if key not in cached.plans:
            if len(cached.plans) >= MAX_PLANS:
                cached.plans.clear()
            cached.plans[key] = OperationPlans()
        return cached.plans[key]

    def _add(self, executor: Any) -> CachedOperation:
        key = id(executor.operation)
        # Once the operation is freed, another one can get its id.
        alive = weakref.ref(executor.operation, lambda _: self.operations.pop(key, None))
        found = list(directives(executor.operation.selection_set, executor.fragments))
        incremental = any(each.name.value in INCREMENTAL for each in found)
        names = None if incremental else tuple(sorted(set(conditions(found))))
        self.operations[key] = CachedOperation(alive, names, {})
        return self.operations[key]


def directives(selected: SelectionSetNode, fragments: Mapping[str, FragmentDetails]) -> Iterator[DirectiveNode]:
    """Yield the directives in a selection, at any depth."""
    waiting, seen = [selected], set[str]()
    while waiting:
        for selection in waiting.pop().selections:
            yield from selection.directives or ()
            inner = getattr(selection, "selection_set", None)
            if isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
                seen.add(selection.name.value)
                fragment = fragments.get(selection.name.value)
                inner = fragment.definition.selection_set if fragment else None
            if inner:
                waiting.append(inner)


def conditions(found: Iterable[DirectiveNode]) -> Iterator[str]:
    """Yield the names of the variables that decide whether fields are included."""
    for directive in found:
        if directive.name.value in CONDITIONS:
            for argument in directive.arguments or ():
                if isinstance(argument.value, VariableNode):
                    yield argument.value.name.value
