"""Filters of the client's requests: JSON objects of operators as conditions in SQL."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic.alias_generators import to_pascal
from sqlalchemy.types import TypeEngine

from runstate.database import text_search
from runstate.database.dialects import DatabaseTime, among, has_all_tags, has_any_tag, seconds_between, text_contains
from runstate.database.texts import starts_with
from runstate.documents.base import Text
from runstate.documents.pools import MISSED
from runstate.documents.states import StateType
from runstate.prefect.bodies import Time
from runstate.rows import (
    Artifact,
    ArtifactCollection,
    Automation,
    BlockDocument,
    BlockSchema,
    BlockType,
    ConcurrencyLimit,
    Deployment,
    Flow,
    FlowRun,
    Log,
    Row,
    TaskRun,
    Worker,
    WorkPool,
    WorkQueue,
)
from runstate.rows.base import JSON, Timestamp
from runstate.rows.variables import Variable

Clause = sa.ColumnElement[bool]
Column = sa.ColumnElement[Any]
Table = sa.FromClause
Part = Callable[[Table, Any], Clause | None]
"""Returns the condition on a table for the value of a member; None if the value holds no condition."""


IdText = Annotated[UUID, AfterValidator(str)]
Small = Annotated[int, Field(ge=-(2**15), lt=2**15)]
Whole = Annotated[int, Field(ge=-(2**31), lt=2**31)]
MOST_BEGINNINGS: Final = 100
"""Largest number of beginnings that a text is compared with. Each is a condition of its own."""
MOST_VALUES: Final = 50_000
"""Largest number of values of another list. They are one parameter."""
KINDS: Final[tuple[tuple[type[TypeEngine[Any]], Any], ...]] = (
    (Timestamp, Time),
    (sa.Enum, StateType),
    (sa.String, Text),
    (sa.Integer, Whole),
    (sa.Uuid, UUID),
    (sa.Boolean, bool),
)
"""The types of values by the type of the column."""


def _any_start(column: Column, texts: list[str]) -> Clause:
    return sa.or_(sa.false(), *(starts_with(column, text) for text in texts))


def _is_empty(column: Column, value: bool) -> Clause:  # noqa: FBT001
    return column == [] if value else column != []


class Operator(NamedTuple):
    """An operator of a filter."""

    of: Literal["value", "list", "flag", "text"]
    """The type of its operand: a value of the column or a list of them, a boolean or a text."""
    clause: Callable[[Column, Any], Clause]
    most: int = MOST_VALUES
    """Largest length of a list."""


OPERATORS: Final = {
    "any_": Operator("list", among),
    "not_any_": Operator("list", lambda column, values: sa.not_(among(column, values))),
    "startswith_": Operator("list", _any_start, MOST_BEGINNINGS),
    "is_null_": Operator("flag", lambda column, value: column.is_(None) if value else column.is_not(None)),
    "exists_": Operator("flag", lambda column, value: column.is_not(None) if value else column.is_(None)),
    "before_": Operator("value", lambda column, value: column <= value),
    "after_": Operator("value", lambda column, value: column >= value),
    "ge_": Operator("value", lambda column, value: column >= value),
    "le_": Operator("value", lambda column, value: column <= value),
    "eq_": Operator("value", lambda column, value: column == value),
    "like_": Operator("text", text_contains),
}
TAG_OPERATORS: Final = {
    "all_": Operator("list", has_all_tags),
    "any_": Operator("list", has_any_tag),
    "is_null_": Operator("flag", _is_empty),
}
"""Operators on lists of tags: an empty list counts as null."""


class Condition(BaseModel):
    """A filter, or one member of it. Members that are null hold no condition."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operator: Literal["and_", "or_"] = "and_"
    parts: ClassVar[Mapping[str, Part]] = {}

    def clause(self, table: Table) -> Clause | None:
        """Return the condition on rows of a table, or of an alias of it; None without one."""
        given = ((part, value) for name, part in self.parts.items() if (value := getattr(self, name)) is not None)
        found = [clause for part, value in given if (clause := part(table, value)) is not None]
        if not found:
            return None
        return sa.or_(*found) if self.operator == "or_" else sa.and_(*found)


class Tested(NamedTuple):
    """A member of a filter: operators on a column or on another value of the row."""

    operators: str
    column: str | Callable[[Table], Column]
    kind: Any = None
    """The type of values; by default that of the column."""
    known: Mapping[str, Operator] = OPERATORS


Members = Mapping[str, "str | Tested | type[Condition] | dict[str, Tested]"]
"""The members of a filter: operators on the column of that name, on another value, or a filter of their own."""


def _operand(operator: Operator, kind: Any) -> Any:
    several = Annotated[list[kind], Field(max_length=operator.most)]
    return {"value": kind, "list": several, "flag": bool, "text": Text}[operator.of] | None


def _test(operator: Operator, value_of: Callable[[Table], Column]) -> Part:
    return lambda table, operand: operator.clause(value_of(table), operand)


def _nested(table: Table, condition: Condition) -> Clause | None:
    return condition.clause(table)


def _condition(name: str, parts: dict[str, Part], kinds: dict[str, Any]) -> type[Condition]:
    fields: dict[str, Any] = {member: (kind | None, None) for member, kind in kinds.items()}
    made = create_model(name, __base__=Condition, __module__=__name__, **fields)
    made.parts = parts
    return made


def _tested(name: str, row: type[Row], tested: Tested) -> type[Condition]:
    column = tested.column
    known, kind = tested.known, tested.kind
    if isinstance(column, str):
        stored = row.__table__.c[column]
        if isinstance(stored.type, sa.JSON):
            known, kind = TAG_OPERATORS, Text
        kind = kind or next(known for each, known in KINDS if isinstance(stored.type, each))
    value_of: Callable[[Table], Column] = (lambda table: table.c[column]) if isinstance(column, str) else column
    operators = {each: known[each] for each in tested.operators.split()}
    parts = {each: _test(operator, value_of) for each, operator in operators.items()}
    return _condition(name, parts, {each: _operand(operator, kind) for each, operator in operators.items()})


def _member(row: type[Row], name: str, member: str, declared: Any) -> type[Condition]:
    match declared:
        case str():
            return _tested(name, row, Tested(declared, member))
        case Tested():
            return _tested(name, row, declared)
        case dict():
            return _filter(row, declared, name)
    own: type[Condition] = declared
    return own


def _filter(row: type[Row], members: Members, name: str = "") -> type[Condition]:
    name = name or f"{row.__name__}Filter"
    kinds = {each: _member(row, name + to_pascal(each), each, declared) for each, declared in members.items()}
    return _condition(name, dict.fromkeys(kinds, _nested), kinds)


def _origin(member: str) -> Callable[[Table], Column]:
    return lambda table: sa.type_coerce(table.c.created_by, JSON)[member].as_string()


def _child_of(table: Table, flow_runs: list[UUID]) -> Clause:
    stand_ins = sa.select(TaskRun.id).where(among(TaskRun.flow_run_id, flow_runs))
    return table.c.parent_task_run_id.in_(stand_ins)


def _one_of(row: type[Row], key: str, value: str = "id") -> Callable[[Table], Column]:
    """Return the function for a value of the first row that refers to a row of the table by a key; null for none."""

    def found(table: Table) -> Column:
        other = row.__table__.alias()
        first = sa.select(other.c[value]).where(other.c[key] == table.c.id).limit(1)
        return first.correlate(table).scalar_subquery()

    return found


def _named(row: type[Row], key: str, value: str) -> Callable[[Table], Column]:
    """Return the function for a value of the row that a row of the table refers to by a key."""

    def found(table: Table) -> Column:
        other = row.__table__.alias()
        return sa.select(other.c[value]).where(other.c.id == table.c[key]).correlate(table).scalar_subquery()

    return found


_limit = _named(ConcurrencyLimit, "concurrency_limit_id", "limit")


def _name_of_either(table: Table) -> Column:
    return table.c.name + "\n" + _named(Flow, "flow_id", "name")(table)


def _search(table: Table, text: str) -> Clause:
    return text_search.matches([table.c[name] for name in Log.__searched__], text_search.parse(text))


def _is_online(table: Table) -> Column:
    silent = seconds_between(table.c.last_heartbeat_time, DatabaseTime())
    return sa.case((silent <= MISSED * table.c.heartbeat_interval_seconds, "ONLINE"), else_="OFFLINE")


STATE: Final = {"type": Tested("any_ not_any_", "state_type"), "name": Tested("any_ not_any_", "state_name")}
CREATED_BY: Final = {
    "id_": _test(OPERATORS["any_"], _origin("id")),
    "type_": _test(OPERATORS["any_"], _origin("type")),
    "is_null_": _test(OPERATORS["is_null_"], lambda table: table.c.created_by),
}
CreatedBy = _condition("CreatedBy", CREATED_BY, {"id_": list[IdText], "type_": list[Text], "is_null_": bool})
ChildOf = _condition("ChildOf", {"any_": _child_of}, {"any_": list[UUID]})
Search = _condition("Search", {"query": _search}, {"query": Annotated[Text, Field(max_length=200)]})
ANY: Final = "any_"
NAMED: Final = "any_ like_"
TAGGED: Final = "all_ any_ is_null_"
BETWEEN: Final = "before_ after_"
TIME: Final = f"{BETWEEN} is_null_"
OPTIONAL: Final = "any_ is_null_"
EITHER: Final = "any_ not_any_"

FlowFilter = _filter(
    Flow,
    {
        "id": EITHER,
        "name": NAMED,
        "tags": TAGGED,
        "deployment": Tested("is_null_", _one_of(Deployment, "flow_id"), UUID),
    },
)
FlowRunFilter = _filter(
    FlowRun,
    {
        "id": EITHER,
        "name": NAMED,
        "tags": TAGGED,
        "deployment_id": OPTIONAL,
        "work_queue_name": OPTIONAL,
        "state": STATE,
        "flow_version": ANY,
        "start_time": TIME,
        "end_time": TIME,
        "expected_start_time": BETWEEN,
        "next_scheduled_start_time": BETWEEN,
        "parent_flow_run_id": ChildOf,
        "parent_task_run_id": OPTIONAL,
        "idempotency_key": EITHER,
        "created_by": CreatedBy,
    },
)
TaskRunFilter = _filter(
    TaskRun,
    {
        "id": ANY,
        "name": NAMED,
        "tags": TAGGED,
        "state": STATE,
        "start_time": TIME,
        "end_time": TIME,
        "expected_start_time": BETWEEN,
        "subflow_runs": Tested("exists_", _one_of(FlowRun, "parent_task_run_id"), UUID),
        "flow_run_id": OPTIONAL,
    },
)
DeploymentFilter = _filter(
    Deployment,
    {
        "id": EITHER,
        "name": NAMED,
        "flow_or_deployment_name": Tested("like_", _name_of_either, Text),
        "paused": "eq_",
        "tags": TAGGED,
        "work_queue_name": ANY,
        "concurrency_limit": Tested(
            "ge_ le_ is_null_", _named(ConcurrencyLimit, "concurrency_limit_id", "limit"), Whole
        ),
    },
)
WorkPoolFilter = _filter(WorkPool, {"id": ANY, "name": ANY, "type": ANY})
WorkQueueFilter = _filter(WorkQueue, {"id": ANY, "name": "any_ startswith_"})
WorkerFilter = _filter(
    Worker, {"last_heartbeat_time": BETWEEN, "status": Tested(EITHER, _is_online, Literal["ONLINE", "OFFLINE"])}
)
LogFilter = _filter(
    Log,
    {
        "level": Tested("ge_ le_", "level", Small),
        "timestamp": BETWEEN,
        "flow_run_id": ANY,
        "task_run_id": OPTIONAL,
        "text": Search,
    },
)
OF_ARTIFACTS: Final = {"key": f"{NAMED} exists_", "flow_run_id": ANY, "task_run_id": ANY, "type": EITHER}
ArtifactFilter = _filter(Artifact, {"id": ANY} | OF_ARTIFACTS)
ArtifactCollectionFilter = _filter(ArtifactCollection, {"latest_id": ANY} | OF_ARTIFACTS)
VariableFilter = _filter(Variable, {"id": ANY, "name": NAMED, "tags": TAGGED})
AutomationFilter = _filter(Automation, {"id": ANY, "name": ANY, "created": "before_", "tags": TAGGED})
BlockTypeFilter = _filter(BlockType, {"name": "like_", "slug": ANY})
BlockSchemaFilter = _filter(
    BlockSchema,
    {"block_type_id": ANY, "block_capabilities": Tested("all_", "capabilities"), "id": ANY, "version": ANY},
)
BlockDocumentFilter = _filter(BlockDocument, {"id": ANY, "is_anonymous": "eq_", "block_type_id": ANY, "name": NAMED})
