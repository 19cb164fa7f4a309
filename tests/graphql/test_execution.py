"""The executor gives the same answers as graphql-core, byte for byte: generated documents over rows of every kind."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from math import inf
from random import Random
from typing import Any, cast
from uuid import UUID

import orjson
import pytest
from graphql import (
    ExecutionResult,
    ExperimentalIncrementalExecutionResults,
    GraphQLArgument,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    GraphQLString,
    execute,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_required_argument,
    is_required_input_field,
    parse,
    validate,
)
from strawberry.types.arguments import convert_argument

from runstate.database import Database
from runstate.documents.states import StateDetails, StateType
from runstate.graphql.context import Context
from runstate.graphql.execution.executor import Executor, executor_with
from runstate.graphql.execution.operation import Schema
from runstate.graphql.execution.plan_cache import PlanCache
from runstate.graphql.schema import build_schema
from runstate.graphql.transport.sse import body_of
from runstate.graphql.types.derive import definition_of
from runstate.graphql.types.input_values import read
from runstate.graphql.types.scalars import dumped
from runstate.graphql.validation.document_cache import MAX_CACHED_CHARACTERS
from runstate.graphql.validation.limits import RequestLimits
from runstate.rows import Row
from tests.graphql.factories import (
    at,
    ids,
    make_deployment,
    make_flow,
    make_flow_run,
    make_limit,
    make_state,
    make_task_run,
    store,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
VARIABLES = {"yes": True, "no": False}
DOCUMENTS = 80
BOUNDS = RequestLimits(cost=10**9, aliases=1000, depth=100)
FAST = build_schema(limits=BOUNDS)
STOCK = build_schema(BOUNDS, plans=False)
ROOTS = (
    *("flows", "deployments", "flowRuns", "taskRuns", "concurrencyLimits"),
    *("node", "nodes", "flow", "flowRun", "taskRun", "flowRunState", "taskRunState", "deployment"),
    *("flowRunCountsByState", "flowRunHistory", "__typename", "flowRunCount"),
)


class DocumentGenerator:
    """Generates valid documents: every kind of selection, over every type of rows."""

    def __init__(self, seed: int, schema: GraphQLSchema, known: list[str]) -> None:
        self.random = Random(seed)
        self.schema = schema
        self.known = known
        self.names = count(1)
        self.fragments: list[str] = []

    def document(self) -> str:
        """Return a document."""
        self.fragments = []
        query = self.schema.query_type
        assert query
        roots = [self.field(query, name, 3) for name in self.random.choices(ROOTS, k=self.random.randint(1, 2))]
        always = "ok: __typename @include(if: $yes) no: __typename @skip(if: $no)"
        operation = f"query($yes: Boolean!, $no: Boolean!) {{ {always} {' '.join(roots)} }}"
        return "\n".join([operation, *self.fragments])

    def selection(self, kind: Any, depth: int) -> str:
        """Return a selection of fields of a type."""
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            names = [name for name, field in kind.fields.items() if self.possible(field, depth)]
            chosen = self.random.sample(names, k=min(len(names), self.random.randint(1, 9)))
            parts = [self.field(kind, name, depth) for name in chosen] or ["__typename"]
        else:
            parts = ["__typename"]
        if not isinstance(kind, GraphQLObjectType):
            some = self.random.sample(self.schema.get_possible_types(kind), k=2)
            parts += [f"... on {each.name} {{ {self.selection(each, depth)} }}" for each in some]
        if self.chance(0.2):
            parts.append(f"__typename {self.directive()}")
        if self.chance(0.3):
            parts.append(self.fragment(kind, depth))
        self.random.shuffle(parts)
        return " ".join(parts)

    def fragment(self, kind: Any, depth: int) -> str:
        """Return a fragment with fields of a type."""
        condition = self.random.choice([kind, *getattr(kind, "interfaces", ())])
        inner = f"{{ {self.selection(condition, max(depth - 1, 0))} }}"
        if self.chance(0.5):
            return f"... on {condition.name} {self.directive()} {inner}"
        name = f"F{next(self.names)}"
        self.fragments.append(f"fragment {name} on {condition.name} {inner}")
        return f"...{name} {self.directive()}"

    def field(self, kind: Any, name: str, depth: int) -> str:
        """Return a field with its arguments and selection."""
        if name == "__typename":
            return name
        field = kind.fields[name]
        alias = f"a{next(self.names)}: " if field.args or self.chance(0.2) else ""
        inner = get_named_type(field.type)
        selected = f" {{ {self.selection(inner, depth - 1)} }}" if is_composite_type(inner) else ""
        return f"{alias}{name}{self.arguments(field)} {self.directive()}{selected}"

    def arguments(self, field: GraphQLField) -> str:
        """Return arguments of a field; a few are invalid."""
        said = list(filter(None, (self.argument(name, each) for name, each in field.args.items())))
        return f"({', '.join(said)})" if said else ""

    def argument(self, name: str, argument: GraphQLArgument) -> str:
        """Return an argument, or an empty text."""
        known = self.random.choice([*self.known, "malformed"])
        values = {
            "id": f'"{known}"',
            "ids": orjson.dumps(self.random.sample(self.known, k=7)).decode(),
            "by": f'{{id: "{known}"}}' if self.chance(0.8) else '{name: "etl"}',
            "since": '"2026-01-01T11:59:00Z"',
            "until": '"2026-01-01T12:05:00Z"',
            "intervalSeconds": "60",
        }
        if name in values and is_required_argument(argument):
            return f"{name}: {values[name]}"
        if name == "first" and self.chance(0.5):
            return f"first: {self.random.choice([1, 2, 5, 200, 0])}"
        return 'after: "bad"' if name == "after" and self.chance(0.03) else ""

    def directive(self) -> str:
        """Return a directive with a condition, or an empty text."""
        if self.chance(0.85):
            return ""
        value = self.random.choice(["$yes", "$no", "true", "false"])
        return f"@{self.random.choice(['skip', 'include'])}(if: {value})"

    def possible(self, field: GraphQLField, depth: int) -> bool:
        """Return whether a field can be selected at this depth."""
        return depth > 0 or not is_composite_type(get_named_type(field.type))

    def chance(self, share: float) -> bool:
        """Return True with this probability."""
        return self.random.random() < share


def rows(*, wide: bool, infinite: bool = True) -> Iterator[Row]:
    """Yield rows of every kind, including values that cannot be serialized; wide: also integers beyond 32 bits."""
    flows = [make_flow(), make_flow("reports", tags=["a", "b"], labels={"deep": [1, {"x": None}]})]
    limit = make_limit(slot_decay_per_second=0.0)
    deployments = [make_deployment(flows[0], concurrency_limit_id=limit.id), make_deployment(flows[1], "hourly")]
    yield from (*flows, limit, *deployments)
    for number in range(6):
        odd: dict[str, Any] = {"total_run_time_seconds": inf} if infinite and number == 4 else {}
        if wide and number == 5:
            odd = {"run_count": 2**40}
        run = make_flow_run(
            flows[number % 2],
            deployment_id=deployments[0].id if number % 3 else None,
            name=f'run "{number}" ü',
            state_type=list(StateType)[number],
            state_name=list(StateType)[number].value,
            start_time=at(number / 3),
            **odd,
        )
        details = StateDetails(scheduled_time=at(number), run_input_keyset={"schema": "x"})
        states = [make_state(run), make_state(run, 2, list(StateType)[number], data=[None, 1.5, {}], details=details)]
        task = make_task_run(run, name=f"task {number}", version=2**31 - 1)
        entered = make_state(task, data={"type": "x"})
        yield run.replace(state_id=states[-1].id if number else None)
        yield from states
        yield task.replace(state_id=entered.id, state_type=StateType.PENDING, state_name="Pending")
        yield entered
    yield make_task_run()


async def answer(schema: Schema, database: Database, document: str) -> dict[str, Any]:
    """Return the answer of a schema; errors that occur concurrently are sorted."""
    result = await schema.execute(document, VARIABLES, Context(database, lambda: NOW, request_id="request"))
    await loads_under_way()
    body: dict[str, Any] = orjson.loads(dumped(body_of(result)))
    text = orjson.dumps(body.get("data"))
    errors = sorted(body.get("errors", ()), key=orjson.dumps)
    return {"data": text, "errors": errors}


async def loads_under_way() -> None:
    """Wait for loads that continue after a sibling field has failed."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*rest, return_exceptions=True)


def told_alike(got: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Return whether two answers are equal.

    If several fields make one object null, only the first error is reported: that depends on timing.
    """
    return got == expected or (
        got["data"] == expected["data"] and len(expected["errors"]) > 0 and nulled(got) == nulled(expected)
    )


def nulled(answer: dict[str, Any]) -> list[list[str | int]]:
    """Return the place of the null that each error caused."""
    return sorted((_nulled(orjson.loads(answer["data"]), each.get("path", [])) for each in answer["errors"]), key=repr)


def _nulled(data: Any, path: list[str | int]) -> list[str | int]:
    for depth, key in enumerate(path):
        if data is None:
            return path[:depth]
        data = data[key]
    return path


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore:Exception ignored in. <coroutine")
@pytest.mark.parametrize("seed", range(3))
async def test_answers_equal_those_of_graphql_core(database: Database, kind: str, seed: int) -> None:
    stored = list(rows(wide=kind == "sqlite"))
    await store(database, *stored)
    schema = STOCK._schema  # noqa: SLF001 documents are generated from its types
    generator = DocumentGenerator(seed, schema, ids(stored))
    documents = [generator.document() for _ in range(DOCUMENTS)]
    asked = [document for document in documents if not validate(schema, parse(document))]

    failed = 0
    for document in asked:
        expected = await answer(STOCK, database, document)
        assert told_alike(await answer(FAST, database, document), expected), document
        failed += bool(expected["errors"])

    assert len(asked) > DOCUMENTS * 0.6
    assert 0 < failed < len(asked) / 2


DOCUMENT = """query($yes: Boolean!, $no: Boolean! = true) {
  __typename @skip(if: $no)
  flows { nodes { id @include(if: $yes) ...Named } }
}
fragment Named on Flow { name @skip(if: $no) created @include(if: $yes) }"""


async def test_directives_are_evaluated_with_the_variables_of_each_execution(database: Database) -> None:
    await store(database, make_flow())
    given: list[dict[str, bool]] = [{"yes": yes, "no": no} for yes in (True, False) for no in (True, False)]
    given.append({"yes": True})

    for variables in given * 2:
        fast = await FAST.execute(DOCUMENT, variables, Context(database, lambda: NOW))
        stock = await STOCK.execute(DOCUMENT, variables, Context(database, lambda: NOW))
        assert not stock.errors
        assert dumped(body_of(fast)) == dumped(body_of(stock))


async def test_plans_are_freed_with_their_documents(database: Database) -> None:
    schema = build_schema()
    too_long_to_keep = f"{{ flows {{ nodes {{ id }} }} }} # {'x' * MAX_CACHED_CHARACTERS}"

    for document in ("{ flows { nodes { id } } }", too_long_to_keep):
        assert not (await schema.execute(document, None, Context(database, lambda: NOW))).errors
    await loads_under_way()
    gc.collect()

    assert len(schema.plan_cache.operations) == 1


def test_defer_is_evaluated_with_the_variables_of_each_execution() -> None:
    executors, document = (
        executor_with(PlanCache()),
        parse("query($later: Boolean!) { ... @defer(if: $later) { __typename } }"),
    )

    built = [executors.build(FAST._schema, document, None, None, {"later": later}) for later in (False, True, False)]  # noqa: SLF001
    at_once, in_parts, again = [cast("Executor", each).execute_operation() for each in built]

    assert at_once == again == ExecutionResult({"__typename": "Query"}, None)
    assert isinstance(in_parts, ExperimentalIncrementalExecutionResults)
    assert in_parts.initial_result.data == {}


async def test_mutations_are_executed_one_after_another() -> None:
    seen: list[str] = []

    async def change(_: Any, info: GraphQLResolveInfo[Any]) -> None:
        seen.append(f"{info.path.key} begins")
        await asyncio.sleep(0)
        seen.append(f"{info.path.key} ends")

    changing = GraphQLObjectType("Mutation", {"change": GraphQLField(GraphQLString, resolve=change)})
    schema = GraphQLSchema(mutation=changing, query=GraphQLObjectType("Query", {"id": GraphQLField(GraphQLString)}))

    document = parse("mutation { first: change second: change }")
    await cast("Any", execute(schema, document, executor_class=executor_with(PlanCache())))

    assert seen == ["first begins", "first ends", "second begins", "second ends"]


USUAL = """{
  flows { totalCount nodes { name tags labels flowRuns(first: 2) { edges { cursor node { id state { name } } } } } }
  flowRuns(orderBy: [{startTime: DESC}]) {
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    nodes { id created tags parameters policy { retries } stateType runCount totalRunTimeSeconds flow { name }
      estimatedRunTimeSeconds estimatedStartTimeDeltaSeconds deployment { name flow { id } }
      states { nodes { isFinal version details { scheduledTime } data } }
      taskRuns { totalCount nodes { name taskKey state { type } flowRun { name } states { nodes { name } } } } } } }"""


async def test_common_documents_are_executed_by_plans_alone(database: Database) -> None:
    await store(database, *rows(wide=False, infinite=False))
    schema = build_schema(BOUNDS)

    result = await schema.execute(USUAL, None, Context(database, lambda: NOW))

    assert not result.errors
    assert not schema.plan_cache.fallbacks.counts


async def test_a_page_with_a_reference_and_a_nested_list_takes_a_statement_for_each(
    database: Database,
) -> None:
    await store(database, *rows(wide=False, infinite=False))
    context = Context(database, lambda: NOW)

    await FAST.execute("{ flowRuns { nodes { flow { id } states { nodes { id } } } } }", None, context)

    assert context.statements == 3


BY_THE_LIBRARY = '{{ nodes(ids: ["{id}"]) {{ id }} flow(by: {{id: "{id}"}}) {{ name }} }}'.format(id=UUID(int=1))


@pytest.mark.parametrize("document", [USUAL, BY_THE_LIBRARY, "{ __typename }", "{ flows { nothing } }"])
async def test_objects_of_an_answer_are_freed_without_the_garbage_collector(database: Database, document: str) -> None:
    await store(database, *rows(wide=False, infinite=False))
    gc.collect()
    gc.disable()
    try:
        context = Context(database, lambda: NOW)
        gone = weakref.ref(context)
        await FAST.execute(document, None, context)
        await loads_under_way()
        del context

        assert gone() is None
    finally:
        gc.enable()


async def test_a_total_count_alone_reads_no_page(database: Database) -> None:
    await store(database, *rows(wide=False))
    context = Context(database, lambda: NOW)

    result = await FAST.execute("{ flowRuns { totalCount } }", None, context)

    assert result.data == {"flowRuns": {"totalCount": 6}}
    assert context.statements == 1


def value_of(kind: Any, random: Random, depth: int = 3) -> Any:
    """Return a random value of an input type as graphql-core passes it to a resolver; None where null is allowed."""
    if not isinstance(kind, GraphQLNonNull):
        return None if random.random() < 0.3 else value_of(GraphQLNonNull(kind), random, depth)
    inner = kind.of_type
    if isinstance(inner, GraphQLList):
        return [value_of(inner.of_type, random, depth) for _ in range(random.randint(0, 2))]
    if isinstance(inner, GraphQLInputObjectType):
        required = {name for name, field in inner.fields.items() if is_required_input_field(field)}
        given = [name for name in inner.fields if name in required or random.random() < depth * 0.2]
        origin = inner.extensions["strawberry-definition"].origin
        is_condition = hasattr(origin, "check_members")  # null or empty conditions are errors of the client
        if is_condition and not origin.may_be_empty and set(given) <= set(origin.options):
            given.append(next(name for name in inner.fields if name not in origin.options))
        kinds = {name: inner.fields[name].type for name in given}
        if is_condition:
            kinds = {name: GraphQLNonNull(get_nullable_type(each)) for name, each in kinds.items()}
        return {name: value_of(each, random, depth - 1) for name, each in kinds.items()}
    return inner.name


@pytest.mark.parametrize("seed", range(20))
def test_inputs_are_read_like_strawberry_reads_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random, converter = Random(seed), STOCK.schema_converter
    kinds = [kind for kind in STOCK._schema.type_map.values() if isinstance(kind, GraphQLInputObjectType)]  # noqa: SLF001
    origins = [kind.extensions["strawberry-definition"].origin for kind in kinds]
    ours = [each for each in zip(kinds, origins, strict=True) if definition_of(each[1]).from_input is read]
    values = [value_of(GraphQLNonNull(kind), random) for kind, _ in ours]

    made = [read(cls, value, None) for (_, cls), value in zip(ours, values, strict=True)]
    for _, cls in ours:
        monkeypatch.setattr(definition_of(cls), "from_input", None)
    stock = [
        convert_argument(value, cls, converter.scalar_registry, STOCK.config)
        for (_, cls), value in zip(ours, values, strict=True)
    ]

    assert made == stock
    assert list(map(repr, made)) == list(map(repr, stock))
