"""Tallies of runs equal counts of their rows after any changes."""

import random
from typing import Any

from starlette.applications import Starlette

from runstate.app import clock
from runstate.core.checks.verify import verify
from runstate.database import Database
from runstate.services import tally_compaction
from tests.client import Ask
from tests.graphql.factories import at, store
from tests.graphql.factories import make_flow as flow_row
from tests.graphql.factories import make_flow_run as flow_run_row
from tests.graphql.mutations import make_deployment, make_flow, make_flow_run, make_task_run, propose

REAL = {"runCount": {"gte": 0}}
"""A condition that every run meets and that the tallies cannot answer."""
NUMBERS = """query($flow: FlowRunWhere, $task: TaskRunWhere) {
  flowRunCount(where: $flow) taskRunCount(where: $task)
  flowRuns(where: $flow) { totalCount } taskRuns(where: $task) { totalCount }
  flowRunCountsByState(where: $flow) { stateType stateName count }
  taskRunCountsByState(where: $task) { stateType stateName count }
  flows: flowRunCounts(where: $flow, groupBy: [FLOW, STATE_TYPE]) { flowId stateType count }
  deployments: flowRunCounts(where: $flow, groupBy: [DEPLOYMENT]) { deploymentId deployment { id } count }
  tasks: taskRunCounts(where: $task, groupBy: [STATE_NAME, DEPLOYMENT, FLOW]) {
    flow { id } deploymentId stateName count } }"""
CONDITIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"flow": {"name": {"eq": "one"}}}, {"flowRun": {"flow": {"name": {"eq": "one"}}}}),
    ({"deployment": {}}, {"flowRun": {"deployment": {}}}),
    ({"deploymentId": {"isNull": True}}, {"not": {"flowRun": {"deploymentId": {"isNull": True}}}}),
    (
        {"or": [{"stateType": {"eq": "RUNNING"}}, {"not": {"deployment": {"name": {"eq": "nightly"}}}}]},
        {"stateType": {"in": ["PENDING", "RUNNING"]}},
    ),
]


def sorted_lists(data: Any) -> Any:
    """Return an answer without the order of its lists."""
    if isinstance(data, list):
        return sorted(map(repr, data))
    return {name: sorted_lists(value) for name, value in data.items()} if isinstance(data, dict) else data


async def agree(ask: Ask) -> None:
    """Check that the tallies and counts of rows agree."""
    for flow, task in CONDITIONS:
        added_up = await ask(NUMBERS, flow=flow, task=task)
        counted = await ask(NUMBERS, flow={"and": [REAL, flow]}, task={"and": [REAL, task]})
        assert sorted_lists(added_up) == sorted_lists(counted), (flow, task)


async def test_tallies_are_correct_after_changes_deletions_and_compaction(ask: Ask, app: Starlette) -> None:
    chance = random.Random(5)
    flows = [await make_flow(ask, name) for name in ("one", "two")]
    deployments = [await make_deployment(ask, flowId=flow) for flow in flows]
    runs = [
        await make_flow_run(ask, flowId=flows[place], deploymentId=deployment)
        for place in (0, 1)
        for deployment in (deployments[place], None, None)
    ]
    tasks = [await make_task_run(ask, str(place), flowRunId=chance.choice([None, *runs])) for place in range(8)]
    for run in (*runs, *tasks):
        name = chance.choice([None, "Walking", "Late"])
        await propose(ask, run, {"type": "RUNNING", "name": name}, task=run in tasks, force=True)
    await agree(ask)

    await ask("mutation($id: ID!) { deleteFlowRun(id: $id) { __typename } }", id=runs[1])
    await ask("mutation($id: ID!) { deleteTaskRun(id: $id) { __typename } }", id=tasks[0])
    await ask("mutation($id: ID!) { deleteDeployment(id: $id) { __typename } }", id=deployments[0])
    await propose(ask, runs[0], "COMPLETED")
    await agree(ask)
    assert await verify(app.state.database, clock()) == []

    assert await tally_compaction.run_once(app.state.batcher, clock()) > 0
    assert await tally_compaction.run_once(app.state.batcher, clock()) == 0
    await ask("mutation($id: ID!) { deleteFlow(id: $id) { __typename } }", id=flows[1])
    await tally_compaction.run_once(app.state.batcher, clock())
    await agree(ask)
    assert await verify(app.state.database, clock()) == []


async def test_only_a_limited_number_of_state_names_is_counted_separately(ask: Ask, app: Starlette) -> None:
    run = await make_flow_run(ask)
    for number in range(103):
        await propose(ask, run, {"type": "RUNNING", "name": f"Step {number}"}, force=True)
    other = await make_flow_run(ask, flowId=await make_flow(ask), state={"type": "RUNNING", "name": "Step 0"})

    data = await ask("{ flowRunCountsByState { stateName count } }")

    assert sorted_lists(data["flowRunCountsByState"]) == sorted_lists(
        [{"stateName": "Step 0", "count": 1}, {"stateName": "…", "count": 1}]
    )
    assert await verify(app.state.database, clock()) == []
    await propose(ask, run, "COMPLETED")
    await propose(ask, other, "COMPLETED")
    assert await ask("{ flowRunCountsByState { stateName count } }") == {
        "flowRunCountsByState": [{"stateName": "Completed", "count": 2}]
    }
    assert await verify(app.state.database, clock()) == []


async def test_numbers_from_tallies_do_not_read_runs(ask: Ask, read: list[str]) -> None:
    flow = await make_flow(ask)
    read.clear()
    pages = "flowRuns(where: $flow) { totalCount } taskRuns(where: $task) { totalCount }"
    await ask(NUMBERS.replace(pages, ""), flow={"flow": {"id": {"eq": flow}}})

    assert read
    assert not [statement for statement in read if "FROM flow_run" in statement or "FROM task_run" in statement]


async def test_lateness_is_the_average_delay_of_late_starts(database: Database, ask: Ask) -> None:
    flow = flow_row()
    assert await ask("{ flowRunLateness }") == {"flowRunLateness": None}
    late = [flow_run_row(flow, expected_start_time=at(0), start_time=at(seconds)) for seconds in (0, 3, 10)]
    await store(database, flow, *late)

    assert (await ask("{ flowRunLateness }"))["flowRunLateness"] == 4.333333
