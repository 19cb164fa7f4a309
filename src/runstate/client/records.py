"""Objects that clients read: a class is a type of the API, its members are the selection."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from runstate.client.connection import Connection
from runstate.documents.states import StateType

PAGE = 200

Json = dict[str, Any]


class Record(BaseModel):
    """An object of the server."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")
    __list__: ClassVar[str] = ""
    """The field of Query that lists the objects."""
    __type__: ClassVar[str] = ""
    """The name of the type in the API."""

    @classmethod
    @functools.cache
    def selection(cls) -> str:
        """Return the GraphQL selection of the members."""
        return " ".join(_selected(name, field.annotation) for name, field in cls.model_fields.items())


def _selected(name: str, annotation: Any) -> str:
    nested = [
        each for each in (annotation, *get_args(annotation)) if isinstance(each, type) and issubclass(each, Record)
    ]
    return f"{to_camel(name)} {{ {nested[0].selection()} }}" if nested else to_camel(name)


class Flow(Record):
    """A flow."""

    __list__, __type__ = "flows", "Flow"
    id: str
    name: str
    tags: list[str]
    created: datetime


class FlowName(Record):
    """The name of a flow."""

    name: str


class RunState(Record):
    """A state in the history of a run, with the reason for it."""

    type: StateType
    name: str
    timestamp: datetime
    version: int
    message: str | None
    actor: str


class FlowRunRecord(Record):
    """A flow run."""

    __list__, __type__ = "flowRuns", "FlowRun"
    id: str
    name: str
    flow: FlowName
    state_type: StateType | None
    state_name: str | None
    version: int
    tags: list[str]
    parameters: Any
    run_count: int
    created: datetime
    expected_start_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    total_run_time_seconds: float
    deployment_id: str | None
    parent_task_run_id: str | None


class TaskRunRecord(Record):
    """A task run."""

    __list__, __type__ = "taskRuns", "TaskRun"
    id: str
    name: str
    task_key: str
    dynamic_key: str
    flow_run_id: str | None
    state_type: StateType | None
    state_name: str | None
    version: int
    tags: list[str]
    run_count: int
    created: datetime
    start_time: datetime | None
    end_time: datetime | None
    total_run_time_seconds: float


class Deployment(Record):
    """A deployment."""

    __list__, __type__ = "deployments", "Deployment"
    id: str
    name: str
    flow: FlowName
    paused: bool
    tags: list[str]
    entrypoint: str | None
    created: datetime


class Limit(Record):
    """A concurrency limit."""

    __list__, __type__ = "concurrencyLimits", "ConcurrencyLimit"
    id: str
    name: str
    limit: int
    active: bool
    active_slots: int
    waiting_count: int
    slot_decay_per_second: float


class Transition(Record):
    """A transition of a run."""

    run_kind: str
    run_id: str
    flow_run_id: str | None
    flow_id: str | None
    state_type: StateType
    state_name: str
    previous_state_type: StateType | None
    version: int
    occurred: datetime
    message: str | None


class Batch(Record):
    """Transitions, and the cursor after which to go on."""

    cursor: str
    transitions: list[Transition]


P = TypeVar("P", bound=Record)


async def found(
    connection: Connection, kind: type[P], where: Mapping[str, Any] | None, order: Sequence[Mapping[str, str]] | None
) -> AsyncIterator[P]:
    """Yield the objects that meet a condition, page by page."""
    name, after = kind.__type__, None
    document = (
        f"query($where: {name}Where, $order: [{name}OrderBy!], $after: String) {{ it: {kind.__list__}(where: $where, "
        f"orderBy: $order, first: {PAGE}, after: $after) {{ nodes {{ {kind.selection()} }} "
        "pageInfo { hasNextPage endCursor } } }"
    )
    while True:
        variables = {"where": where, "after": after, "order": order}
        given = {key: value for key, value in variables.items() if value is not None}
        page: Json = (await connection.execute(document, given))["it"]
        for each in page["nodes"]:
            yield kind.model_validate(each)
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return


async def one(connection: Connection, kind: type[P], id: str) -> P | None:
    """Return the object with an id; None if the id is unknown."""
    document = f"query($id: ID!) {{ it: node(id: $id) {{ ... on {kind.__type__} {{ {kind.selection()} }} }} }}"
    answer: Json | None = (await connection.execute(document, {"id": id}))["it"]
    return kind.model_validate(answer) if answer else None


async def states_of(connection: Connection, run: str) -> list[RunState]:
    """Return the states of a flow run or a task run, in the order of their versions."""
    document = f"query($id: ID!) {{ it: node(id: $id) {{ ... on Run {{ history {{ {RunState.selection()} }} }} }} }}"
    answer: Json | None = (await connection.execute(document, {"id": run}))["it"]
    return [RunState.model_validate(each) for each in (answer or {}).get("history", ())]
