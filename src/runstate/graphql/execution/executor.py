"""The executor: graphql-core's own, except where a plan answers a selection.

A selection is planned once for a document and the variables of its `@skip` and `@include`. A plan takes rows as the
driver returns them and writes them as JSON column by column. References and nested pages are read for all rows
together. **A plan has no side effects**, so a case that it does not handle (a null in a non-null field, a number out of
range, a row that was deleted) is executed again by graphql-core, which reports the error. Errors of the database and of
limits are reported at once: the same statements would fail again.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, TypeVar, cast

from graphql import (
    GraphQLError,
    GraphQLField,
    GraphQLLeafType,
    GraphQLList,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLResolveInfoHelpers,
    OperationType,
    Undefined,
    is_introspection_type,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, GroupedFieldSet, collect_fields
from graphql.pyutils import AwaitableOrValue, Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from typing_extensions import override

from runstate.errors import LimitExceeded, Overloaded, Timeout, Unavailable
from runstate.graphql.errors import as_known_error
from runstate.graphql.execution.answer_size import AnswerSize
from runstate.graphql.execution.plan_cache import PlanCache
from runstate.graphql.execution.planner import Planner
from runstate.graphql.execution.plans import Execution, ObjectBatch, Plan, Step, all_of
from runstate.graphql.execution.related_plans import Nested
from runstate.graphql.pagination.connection import Connection
from runstate.graphql.pagination.raw_rows import RawRows

T = TypeVar("T")
MOST: Final = {"errors": 100, "resolvers": 4_000, "introspection": 100_000}
"""Largest numbers of fields of an operation that may fail, and that graphql-core executes one by one."""
FINAL: Final = (LimitExceeded, Overloaded, Timeout, Unavailable)
"""Errors that the same statements would only cause again, and later."""


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Strawberry's executor with plans. `executor_with` returns the subclass for a cache of plans."""

    plan_cache: ClassVar[PlanCache]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.plans = self.plan_cache.plans_of(self)
        # Collected fields are cached with their plans, for the next execution of the document.
        self._relevant_sub_fields = self.plans.sub_fields
        # Plans do not call resolvers, so middleware would miss them.
        self.planning = self.plans.complete and not (self.middleware_manager and self.middleware_manager.middlewares)
        self.begin()
        self.root_outcome: Callable[[], Awaitable[Any]] | None = None
        """Returns the value of the one root field, or raises its error, if its resolver was called already."""

    def begin(self) -> None:
        """Begin an answer."""
        self.size = AnswerSize()
        self.used = Counter[str]()
        """Number of fields that have failed, and of those that graphql-core executes one by one."""
        self.exceeded: LimitExceeded | None = None
        """Raised once there are too many of them."""
        self.execution = Execution(self.context_value, self.variable_values, self.fragment_definitions, self.size)

    @override
    def build_per_event_executor(self, payload: Any) -> "Executor":
        """Return an executor for an event of a subscription."""
        executor = cast("Executor", super().build_per_event_executor(payload))
        # Each event is an answer of its own, with its own size and errors.
        executor.begin()
        return executor

    @property
    def async_helpers(self) -> GraphQLResolveInfoHelpers:
        """Helpers of resolvers."""
        return GraphQLResolveInfoHelpers(self.gather_async_work, self.track_async_work)

    @async_helpers.setter
    def async_helpers(self, helpers: GraphQLResolveInfoHelpers) -> None:
        # The base class stores bound methods. With them the executor would refer to itself, and only the garbage
        # collector would free it and all rows that were read.
        pass

    @property
    def planner(self) -> Planner:
        """A planner for this operation."""
        return Planner(self, self.plans)

    @override
    def execute_operation(self, serially: bool | None = None) -> AwaitableOrValue[Any]:
        """Execute the operation. Its root fields are collected once for the document."""
        collected = self._root_fields() if self.plans.complete else None
        # Only graphql-core handles abort signals and hooks.
        if collected is None or self.abort_signal or self.hooks:
            return super().execute_operation(serially)
        kind = self.operation.operation
        root_type = cast("GraphQLObjectType", self.schema.get_root_type(kind))
        # The specification orders the root fields of mutations only.
        in_order = kind is OperationType.MUTATION if serially is None else serially
        try:
            data = self.execute_collected_root_fields(
                root_type, self.root_value, collected.grouped_field_set, in_order, collected.new_defer_usages
            )
        except GraphQLError as error:
            return self._failed(error)
        return self._finished(data) if self.is_awaitable(data) else self.build_response(cast("Any", data))

    async def _finished(self, data: Any) -> Any:
        try:
            return self.build_response(await data)
        except GraphQLError as error:
            return self._failed(error)

    def _failed(self, error: GraphQLError) -> Any:
        # A null in a non-null root field makes the whole data null.
        self.collected_errors.add(error, None)
        return self.build_response(None)

    def _root_fields(self) -> CollectedFields | None:
        """Return the fields of the root; None if graphql-core has to report an error in them."""
        root_type = self.schema.get_root_type(self.operation.operation)
        if self.plans.root is None and root_type is not None:
            try:
                self.plans.root = collect_fields(
                    self.schema, self.fragments, self.variable_values, root_type, self.operation, self.hide_suggestions
                )
            except (GraphQLError, RecursionError):
                return None
        return self.plans.root

    @override
    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: FieldDetailsList,
        path: Path,
        position_context: Any,
    ) -> AwaitableOrValue[Any]:
        """Execute a field. The resolver of a root field with a known outcome is not called."""
        self._use("introspection" if is_introspection_type(parent_type) else "resolvers")
        if self.root_outcome is None or path.prev is not None:
            return super().execute_field(parent_type, source, field_details_list, path, position_context)
        nodes = [each.node for each in field_details_list]
        field = cast("GraphQLField", self.schema.get_field(parent_type, nodes[0].name.value))
        info = self.build_resolve_info(field, nodes, parent_type, path)
        return self.complete_awaitable_value(
            field.type, field_details_list, info, path, self.root_outcome(), position_context
        )

    @override
    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """Execute the fields of an object: by their plan, or one by one."""
        by_library = partial(
            super().execute_fields, parent_type, source_value, path, grouped_field_set, position_context
        )
        if not self.planning:
            return by_library()
        if isinstance(source_value, Connection):
            return self._connection(parent_type, source_value, grouped_field_set, by_library)
        plan = self.planner.plan(parent_type, grouped_field_set)
        if plan is None:
            return by_library()
        if plan.is_attribute_only:
            try:
                self.size.is_known = False
                return plan.fill(source_value)
            except Exception as error:  # noqa: BLE001 graphql-core executes it again and reports the error
                self._fall_back(error)
        return self._field_by_field(plan, source_value, path, position_context)

    def _connection(
        self,
        kind: GraphQLObjectType,
        connection: Connection[Any],
        selected: GroupedFieldSet,
        by_library: Callable[[], AwaitableOrValue[dict[str, Any]]],
    ) -> AwaitableOrValue[dict[str, Any]]:
        plan = self.planner.connection_plan(kind, selected)
        if plan is None:
            return by_library()
        return self._planned_or(partial(plan.page, connection.pages, connection.parent, self.execution), by_library)

    def _field_by_field(
        self, plan: Plan, source: Any, path: Path | None, position_context: Any
    ) -> AwaitableOrValue[dict[str, Any]]:
        results: dict[str, Any] = {}
        waiting: list[str] = []
        try:
            for step in plan.steps:
                result = self._field(plan, step, source, path, position_context)
                if result is not Undefined:
                    results[step.name] = result
                    if self.is_awaitable(result):
                        waiting.append(step.name)
        except Exception:
            # Fields that were started have to end, although their values are not used.
            if waiting:
                self.settle_in_background([results[name] for name in waiting])
            raise
        return _settled(results, waiting) if waiting else results

    def _field(self, plan: Plan, step: Step, source: Any, path: Path | None, position_context: Any) -> Any:
        if step.attribute is not None:
            try:
                return step.serializers.write(getattr(source, step.attribute))
            except Exception as error:  # noqa: BLE001 graphql-core executes it again and reports the error
                self._fall_back(error)
        elif step.name in plan.template and plan.template[step.name] is not None:
            # A constant of the schema, such as `__typename`.
            return plan.template[step.name]
        place = Path(path, step.name, plan.kind.name)
        by_library = partial(self.execute_field, plan.kind, source, step.details, place, position_context)
        if isinstance(step.related, Nested):
            planned = self._planned_or(partial(step.related.page, source, self.execution), by_library)
            return self._located(planned, plan.kind, step, place)
        return by_library()

    async def _located(self, planned: Awaitable[T], kind: GraphQLObjectType, step: Step, place: Path) -> T | None:
        """Return the answer of a field, or note its error with its path, as graphql-core does for other fields."""
        try:
            return await planned
        except Exception as error:
            if isinstance(error, GraphQLError) or not isinstance(as_known_error(error), FINAL):
                raise
            field = cast("GraphQLField", self.schema.get_field(kind, step.details[0].node.name.value))
            self.handle_field_error(error, field.type, step.details, place)
            return None

    @override
    def complete_list_value(
        self,
        return_type: GraphQLList[GraphQLOutputType],
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> AwaitableOrValue[list[Any]]:
        """Complete a list: objects are written together by their plans."""
        by_library = partial(
            super().complete_list_value, return_type, field_details_list, info, path, result, position_context
        )
        if not self.planning or not isinstance(result, list | RawRows) or not len(result):
            return by_library()
        try:
            plans = self.planner.plans_of_list(return_type, field_details_list, result)
            if plans is None:
                return by_library()
            if isinstance(result, list) and all(plan.is_attribute_only for plan in plans.values()):
                self.size.is_known = False
                return [plans[type(each)].fill(each) for each in result]
        except Exception as error:  # noqa: BLE001 graphql-core executes it again and reports the error
            self._fall_back(error)
            return by_library()
        return self._planned_or(partial(self._by_class, plans, result), by_library)

    async def _by_class(self, plans: Mapping[type, Plan], sources: Sequence[Any] | RawRows) -> list[dict[str, Any]]:
        """Return objects of several classes as JSON, in their places."""
        if isinstance(sources, RawRows):
            return await plans[sources.row].write(sources, self.execution)
        batches = {kind: ObjectBatch([each for each in sources if type(each) is kind]) for kind in plans}
        written = await all_of(plan.write(batches[kind], self.execution) for kind, plan in plans.items())
        # An iterator for each class: the objects are taken again in the order of the list.
        answers = dict(zip(plans, map(iter, written), strict=True))
        return [next(answers[type(each)]) for each in sources]

    @override
    def complete_leaf_value(self, return_type: GraphQLLeafType, result: Any) -> Any:  # type: ignore[override]
        """Complete a leaf value, whose size is not estimated."""
        self.size.is_known = False
        return super().complete_leaf_value(return_type, result)

    @override
    def handle_field_error(
        self, raw_error: Exception, return_type: GraphQLOutputType, field_details_list: FieldDetailsList, path: Path
    ) -> None:
        """Note the error of a field. End the operation if there are too many: each has a path and places."""
        if as_known_error(raw_error):
            # The frames refer to the error, so that only the garbage collector would free them, and late.
            raw_error.__traceback__ = None
        if isinstance(raw_error, LimitExceeded) and raw_error.limit in MOST:
            raise raw_error from None
        # An error that has a path was counted at the field where it was raised.
        if not isinstance(raw_error, GraphQLError) or raw_error.path is None:
            self._use("errors")
        super().handle_field_error(raw_error, return_type, field_details_list, path)

    def _use(self, limit: str) -> None:
        self.used[limit] += 1
        if self.used[limit] > MOST[limit]:
            # One exception for all fields, since each would have its frames.
            self.exceeded = self.exceeded or LimitExceeded(limit, MOST[limit])
            raise self.exceeded.with_traceback(None) from None

    async def _planned_or(
        self, planned: Callable[[], Awaitable[T]], by_library: Callable[[], AwaitableOrValue[T]]
    ) -> T:
        """Return the answer of a plan, or graphql-core's if the plan cannot write it. Rows are not read again."""
        try:
            return await planned()
        except Exception as error:  # noqa: BLE001 graphql-core executes it again and reports the error
            self._fall_back(error)
        answer = by_library()
        return await answer if self.is_awaitable(answer) else cast("T", answer)

    def _fall_back(self, error: Exception) -> None:
        """Count a fallback. Raise an error that graphql-core would get again, after the same statements."""
        if isinstance(as_known_error(error), FINAL):
            raise error
        self.plan_cache.fallbacks.record(error, self.operation)


def executor_with(plan_cache: PlanCache) -> type[Executor]:
    """Return an executor that uses a cache of plans."""
    # Strawberry takes a class and makes its instances, so the cache is an attribute of the class.
    return type("PlanningExecutor", (Executor,), {"plan_cache": plan_cache})


async def _settled(results: dict[str, Any], waiting: list[str]) -> dict[str, Any]:
    if len(waiting) == 1:
        results[waiting[0]] = await results[waiting[0]]
    else:
        found = await gather_with_cancel(*(results[name] for name in waiting))
        results.update(zip(waiting, found, strict=True))
    return results
