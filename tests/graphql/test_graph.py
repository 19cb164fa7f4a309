"""The graph of a flow run."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from runstate.database import Database
from runstate.documents.states import StateType
from runstate.documents.task_inputs import CALLED_IN, ConstantSource, ParameterSource, TaskInput, TaskRunSource
from runstate.rows.base import JSON
from tests.client import Ask
from tests.graphql.factories import at, make_flow, make_flow_run, make_task_run, store

GRAPH = """query($id: ID!, $first: Int, $after: ID, $since: DateTime) { flowRun(id: $id) {
  graph(first: $first, after: $after, since: $since) { startTime endTime nodeCount rootNodeIds hasNextPage endCursor
    nodes { kind runId taskRunId label stateType startTime endTime parents children encapsulating } } } }"""


def given_by(*runs: Any, called_in: Any = None) -> list[TaskInput]:
    """Inputs that come from task runs, and some that come from elsewhere."""
    named = [TaskInput(name=f"x{place}", sources=[TaskRunSource(id=run.id)]) for place, run in enumerate(runs)]
    others = [TaskInput(name="y", sources=[ConstantSource(type="int"), ParameterSource(name="z")])]
    inside = [TaskInput(name=CALLED_IN, sources=[TaskRunSource(id=called_in.id)])] if called_in else []
    return [*named, *others, *inside]


async def test_a_graph_contains_task_runs_and_subflow_runs_with_their_inputs(database: Database, ask: Ask) -> None:
    flow, sub = make_flow("etl"), make_flow("sub")
    run = make_flow_run(flow, start_time=at(0), end_time=at(9))
    completed = {"state_type": StateType.COMPLETED}
    one = make_task_run(run, name="one", start_time=at(1), end_time=at(2), **completed)
    holder = make_task_run(run, name="holder", start_time=at(3), task_inputs=given_by(one))
    inner = make_task_run(run, name="in", expected_start_time=at(4), task_inputs=given_by(holder, called_in=one))
    never = make_task_run(run, name="never", task_inputs=given_by(one))
    subflow = make_flow_run(sub, name="s", parent_task_run_id=holder.id, start_time=at(3), **completed)
    subflow = subflow.replace(expected_start_time=at(2.5))
    await store(database, flow, sub, run, one, holder, inner, never, subflow)

    graph = (await ask(GRAPH, id=str(run.id)))["flowRun"]["graph"]
    nodes = {each["label"]: each for each in graph["nodes"]}

    assert [each["label"] for each in graph["nodes"]] == ["one", "sub / s", "in"]
    assert (graph["nodeCount"], graph["rootNodeIds"], graph["hasNextPage"]) == (3, [str(one.id)], False)
    assert nodes["sub / s"] == {
        "kind": "FLOW_RUN",
        "runId": str(subflow.id),
        "taskRunId": str(holder.id),
        "label": "sub / s",
        "stateType": "COMPLETED",
        "startTime": "2026-01-01T12:00:03.000000Z",
        "endTime": "2026-01-01T12:00:02.500000Z",
        "parents": [str(one.id)],
        "children": [str(inner.id)],
        "encapsulating": [],
    }
    assert nodes["one"]["children"] == [str(subflow.id)]
    assert (nodes["in"]["parents"], nodes["in"]["encapsulating"]) == ([str(subflow.id)], [str(one.id)])


async def test_a_graph_is_read_page_by_page(database: Database, ask: Ask) -> None:
    flow = make_flow()
    run = make_flow_run(flow)
    tasks = [make_task_run(run, start_time=at(place), end_time=at(place + 1)) for place in range(5)]
    await store(database, flow, run, *tasks)

    found, after, more = [], None, True
    while more:
        graph = (await ask(GRAPH, id=str(run.id), first=2, after=after))["flowRun"]["graph"]
        found += [UUID(each["runId"]) for each in graph["nodes"]]
        after, more = graph["endCursor"], graph["hasNextPage"]
    since = (await ask(GRAPH, id=str(run.id), since=at(4).isoformat()))["flowRun"]["graph"]["nodes"]

    assert found == [task.id for task in tasks]
    assert [each["runId"] for each in since] == [str(task.id) for task in tasks[3:]]


async def test_invalid_arguments_of_a_graph_are_errors(database: Database, ask: Ask) -> None:
    flow = make_flow()
    run = make_flow_run(flow)
    await store(database, flow, run)

    for wrong, code in (({"first": 0}, "BAD_USER_INPUT"), ({"after": str(run.id)}, "INVALID_INPUT")):
        (error,) = (await ask.raw(GRAPH, id=str(run.id), **wrong))["errors"]
        assert error["extensions"]["code"] == code


async def test_a_node_leads_to_its_run(database: Database, ask: Ask) -> None:
    flow, sub = make_flow(), make_flow("sub")
    run = make_flow_run(flow)
    task, holder = (make_task_run(run, name=name, start_time=at(1)) for name in ("task", "holder"))
    subflow = make_flow_run(sub, name="inner", parent_task_run_id=holder.id, start_time=at(2))
    await store(database, flow, sub, run, task, holder, subflow)

    data = await ask(
        """query($id: ID!) { flowRun(id: $id) { graph { nodes { run { id name __typename } } } } }""", id=str(run.id)
    )

    assert [each["run"] for each in data["flowRun"]["graph"]["nodes"]] == [
        {"id": str(task.id), "name": "task", "__typename": "TaskRun"},
        {"id": str(subflow.id), "name": "inner", "__typename": "FlowRun"},
    ]


CREATE = """mutation($inputs: [TaskInputInput!]) { createTaskRun(input: {
  taskKey: "t", dynamicKey: "0", taskInputs: $inputs}) { ... on CreateTaskRunPayload { taskRun { id taskInputs {
    name sources { __typename ... on TaskRunSource { id } ... on ParameterSource { name } ... on ConstantSource { type }
  } } } } ... on InvalidInput { message path } } }"""


async def test_task_inputs_are_typed(ask: Ask) -> None:
    some = "00000000-0000-7000-8000-000000000001"
    given = [
        {"name": "data", "sources": [{"taskRun": {"id": some}}, {"parameter": {"name": "day"}}, {"constant": {}}]},
        {"name": "nothing", "sources": []},
    ]

    made = (await ask(CREATE, inputs=given))["createTaskRun"]["taskRun"]
    wrong = (await ask(CREATE, inputs=[{"name": "x", "sources": [{"taskRun": {"id": "x"}}]}]))["createTaskRun"]
    both = await ask.raw(CREATE, inputs=[{"name": "x", "sources": [{"taskRun": {"id": some}, "constant": {}}]}])

    assert made["taskInputs"] == [
        {
            "name": "data",
            "sources": [
                {"__typename": "TaskRunSource", "id": some},
                {"__typename": "ParameterSource", "name": "day"},
                {"__typename": "ConstantSource", "type": None},
            ],
        },
        {"name": "nothing", "sources": []},
    ]
    assert "path" in wrong
    assert both["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_inputs_of_earlier_versions_are_still_read(database: Database, ask: Ask) -> None:
    task = make_task_run()
    await store(database, task)
    stored = {
        "data": [{"input_type": "task_run", "id": str(task.id)}, {"input_type": "task_run", "id": "x"}, 7],
        "day": [{"input_type": "parameter", "name": "day"}],
        "n": [{"input_type": "constant", "type": "int"}],
        "odd": "nonsense",
    }
    async with database.write() as transaction:
        old = sa.table("task_run", sa.column("task_inputs", JSON))
        await transaction.connection.execute(sa.update(old).values(task_inputs=stored))

    data = await ask(
        """query($id: ID!) { taskRun(id: $id) { taskInputs {
          name sources { __typename ... on TaskRunSource { id } } } } }""",
        id=str(task.id),
    )

    assert sorted(data["taskRun"]["taskInputs"], key=lambda each: str(each["name"])) == [
        {"name": "data", "sources": [{"__typename": "TaskRunSource", "id": str(task.id)}]},
        {"name": "day", "sources": [{"__typename": "ParameterSource"}]},
        {"name": "n", "sources": [{"__typename": "ConstantSource"}]},
    ]
