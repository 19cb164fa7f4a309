"""The graph of a flow run."""

from typing import Any
from uuid import UUID

from runstate.database import Database
from runstate.documents.states import StateType
from tests.client import Ask
from tests.graphql.factories import at, make_flow, make_flow_run, make_task_run, store

GRAPH = """query($id: ID!, $first: Int, $after: ID, $since: DateTime) { flowRun(id: $id) {
  graph(first: $first, after: $after, since: $since) { startTime endTime nodeCount rootNodeIds hasNextPage endCursor
    nodes { kind runId taskRunId label stateType startTime endTime parents children encapsulating } } } }"""


def given_by(*runs: Any, called_in: Any = None) -> dict[str, Any]:
    """Return inputs that come from task runs, and some from elsewhere."""
    named = {f"x{place}": [{"input_type": "task_run", "id": str(run.id)}] for place, run in enumerate(runs)}
    others = {"y": [{"input_type": "constant", "type": "int"}], "z": "nonsense", "w": [{"id": "malformed"}, 7]}
    inside = {"__parents__": [{"input_type": "task_run", "id": str(called_in.id)}]} if called_in else {}
    return {**named, **others, **inside}


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


async def test_a_node_has_the_artifacts_of_its_run_but_no_results(database: Database, ask: Ask) -> None:
    run = make_flow_run(flow := make_flow())
    task = make_task_run(run, start_time=at(1))
    await store(database, flow, run, task)
    create = """mutation($input: CreateArtifactInput!) { createArtifact(input: $input) { __typename } }"""
    for kind in ("markdown", "result", None, "table"):
        await ask(create, input={"type": kind, "flowRunId": str(run.id), "taskRunId": str(task.id)})
    document = "query($id: ID!) { flowRun(id: $id) { graph { nodes { artifacts { type } } } } }"
    (node,) = (await ask(document, id=str(run.id)))["flowRun"]["graph"]["nodes"]

    assert node["artifacts"] == [{"type": "markdown"}, {"type": None}, {"type": "table"}]
