"""Task runs that clients report by events: in any order, late, twice, and for runs that the server does not know."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.applications import Starlette

from runstate.core.checks.verify import verify
from runstate.database import Database
from runstate.prefect.recorder import MOST_BYTES, MOST_WAITING, Recorder
from tests.prefect.reporting import ReportedTask, emit, emitting, new_flow_run
from tests.serving import Serve
from tests.subscribing import Listening


@pytest.fixture
async def client(server: Listening) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the server."""
    async with httpx.AsyncClient(base_url=f"http://{server.address.replace('/graphql', '/api')}") as client:
        yield client


async def task_run(client: httpx.AsyncClient, task: ReportedTask) -> Any:
    return (await client.get(f"/task_runs/{task.id}")).json()


async def history(client: httpx.AsyncClient, task: ReportedTask) -> list[str]:
    states = (await client.get("/task_run_states/", params={"task_run_id": task.id})).json()
    return [each["name"] for each in states]


async def test_states_that_arrive_in_the_wrong_order_end_in_the_newest(
    server: Listening, client: httpx.AsyncClient, database: Database
) -> None:
    task = ReportedTask(await new_flow_run(client))
    pending, running, ends = (task.event(name, place) for place, name in enumerate(("Pending", "Running", "Completed")))

    async with emitting(server.address) as socket:
        await emit(socket, ends)
        await emit(socket, pending, running)

    run = await task_run(client, task)
    assert (run["state_name"], run["state_id"], run["total_run_time"]) == ("Completed", ends["id"], 0.5)
    assert await history(client, task) == ["Pending", "Running", "Completed"]
    assert await verify(database, datetime.now(UTC)) == []


async def test_a_state_that_overtook_the_one_before_it_waits_for_it(
    server: Listening, client: httpx.AsyncClient
) -> None:
    task = ReportedTask(await new_flow_run(client))
    pending = task.event("Pending", 1)
    # Of the same time: only what follows what tells their order.
    running = task.event("Running", 1, follows=pending["id"])

    async with emitting(server.address) as socket:
        await emit(socket, running, pending)

    assert (await task_run(client, task))["state_name"] == "Running"
    assert await history(client, task) == ["Pending", "Running"]


async def test_the_same_event_on_two_sockets_is_one_state(
    server: Listening, client: httpx.AsyncClient, database: Database
) -> None:
    task = ReportedTask(await new_flow_run(client))
    pending = task.event("Pending")

    for _ in range(2):
        async with emitting(server.address) as socket:
            await emit(socket, pending, pending)

    assert await history(client, task) == ["Pending"]
    assert await verify(database, datetime.now(UTC)) == []


async def test_states_of_the_same_time_are_both_kept(server: Listening, client: httpx.AsyncClient) -> None:
    task = ReportedTask(await new_flow_run(client))

    async with emitting(server.address) as socket:
        await emit(socket, task.event("Pending", 1), task.event("Running", 1))

    assert await history(client, task) == ["Pending", "Running"]
    assert (await task_run(client, task))["state_name"] == "Running"


async def test_a_state_waits_for_its_flow_run_and_delays_no_others(
    server: Listening, client: httpx.AsyncClient
) -> None:
    recorder: Recorder = server.app.state.recorder
    known, unknown = ReportedTask(await new_flow_run(client)), ReportedTask(str(uuid4()))

    async with emitting(server.address) as socket, emitting(server.address) as other:
        await socket.send(httpx.Request("POST", "http://x", json=unknown.event("Pending")).content.decode())
        await emit(other, known.event("Pending"))

        assert (await task_run(client, known))["state_name"] == "Pending"
        assert recorder.parked or recorder.queue
        recorder.patience_seconds = 0
        await emit(socket)
    assert (await client.get(f"/task_runs/{unknown.id}")).status_code == 404
    shown = (await client.get(f"http://{server.address.replace('/graphql', '/metrics')}")).text
    assert 'runstate_prefect_dropped_events_total{reason="unknown flow run"} 1.0' in shown


async def test_a_task_run_without_a_flow_run_is_one_of_its_own(server: Listening, client: httpx.AsyncClient) -> None:
    task = ReportedTask(None)

    async with emitting(server.address) as socket:
        await emit(socket, task.event("Pending"))

    assert (await task_run(client, task))["flow_run_id"] is None


async def test_events_that_report_no_state_are_only_events(
    server: Listening, client: httpx.AsyncClient, live: Any
) -> None:
    task = ReportedTask(await new_flow_run(client))
    event = task.event("Pending")
    del event["resource"]["prefect.orchestration"]

    async with emitting(server.address) as socket:
        await emit(socket, event)

    assert (await client.get(f"/task_runs/{task.id}")).status_code == 404
    asked = "query($id: ID!) { event(id: $id) { name resource { resourceId } related { role } } }"
    told = (await live(asked, id=event["id"]))["event"]
    assert told["name"] == "prefect.task-run.Pending"
    assert told["resource"]["resourceId"] == f"prefect.task-run.{task.id}"
    assert [each["role"] for each in told["related"]] == ["flow-run"]


async def test_a_text_that_is_no_event_is_skipped(server: Listening, client: httpx.AsyncClient) -> None:
    task = ReportedTask(await new_flow_run(client))

    async with emitting(server.address) as socket:
        await socket.send("no JSON")
        await emit(socket, [], {"event": 1}, {**task.event("Running"), "payload": {}}, task.event("Pending"))

    assert await history(client, task) == ["Pending"]


async def test_events_can_be_posted(client: httpx.AsyncClient) -> None:
    task = ReportedTask(await new_flow_run(client))

    assert (await client.post("/events", json=[task.event("Pending"), task.event("Running", 1)])).status_code == 204

    assert await history(client, task) == ["Pending", "Running"]
    assert (await client.post("/events", json=[{"event": "x"}])).status_code == 422


async def test_a_state_can_be_proposed_for_a_reported_run(client: httpx.AsyncClient) -> None:
    task = ReportedTask(await new_flow_run(client, type="RUNNING"))
    await client.post("/events", json=[task.event("Running")])

    answer = await client.post(f"/task_runs/{task.id}/set_state", json={"state": {"type": "COMPLETED"}})

    assert (answer.status_code, answer.json()["status"]) == (201, "ACCEPT")


async def test_states_are_recorded_when_the_flow_run_has_ended(client: httpx.AsyncClient, database: Database) -> None:
    flow_run = await new_flow_run(client, type="COMPLETED")
    task = ReportedTask(flow_run)

    await client.post("/events", json=[task.event("Running"), task.event("Completed", 1)])

    assert (await task_run(client, task))["state_name"] == "Completed"
    assert await verify(database, datetime.now(UTC)) == []


async def test_the_stored_id_wins_if_another_one_has_the_same_keys(client: httpx.AsyncClient) -> None:
    flow_run = await new_flow_run(client)
    stored, other = (ReportedTask(flow_run, dynamic_key="1") for _ in range(2))

    await client.post("/events", json=[stored.event("Pending")])
    await client.post("/events", json=[other.event("Running", 1)])

    assert await history(client, stored) == ["Pending", "Running"]
    assert (await client.get(f"/task_runs/{other.id}")).status_code == 404


async def test_a_batch_of_states_needs_few_statements(
    server: Listening, client: httpx.AsyncClient, database: Database
) -> None:
    flow_run = await new_flow_run(client)
    tasks = [ReportedTask(flow_run) for _ in range(60)]
    events = [
        task.event(name, place) for place, name in enumerate(("Pending", "Running", "Completed")) for task in tasks
    ]
    used = server.app.state.database
    before = used.statements

    await client.post("/events", json=events)

    assert used.statements - before < 40
    wanted = {"flow_runs": {"id": {"any_": [flow_run]}}}
    runs = (await client.post("/task_runs/filter", json=wanted)).json()
    assert {each["state_name"] for each in runs} == {"Completed"}
    assert len(runs) == len(tasks)
    assert await verify(database, datetime.now(UTC)) == []


async def test_reported_states_are_transitions(client: httpx.AsyncClient, live: Any) -> None:
    task = ReportedTask(await new_flow_run(client))

    await client.post("/events", json=[task.event("Pending"), task.event("Running", 1)])

    asked = "query($name: String!) { events(where: {name: {eq: $name}}) { nodes { name resource { name } } } }"
    told = (await live(asked, name="runstate.task-run.Running"))["events"]["nodes"]
    assert [each["resource"]["name"] for each in told] == ["add-1"]


async def test_a_killed_server_has_lost_nothing_that_it_acknowledged(serve: Serve, database: Database) -> None:
    server = await serve()
    address = server.url.removeprefix("http://")
    async with httpx.AsyncClient(base_url=server.url.replace("/graphql", "/api")) as client:
        flow_run = await new_flow_run(client)
    tasks = [ReportedTask(flow_run) for _ in range(40)]
    pending = [task.event("Pending") for task in tasks]
    async with emitting(address) as socket:
        await emit(socket, *pending[:20])
        for each in pending[20:]:
            await socket.send(httpx.Request("POST", "http://x", json=each).content.decode())
        server.process.kill()
        await server.process.wait()

    again = await serve()
    async with httpx.AsyncClient(base_url=again.url.replace("/graphql", "/api")) as client:
        runs = (await client.post("/task_runs/filter", json={})).json()
        assert {each["id"] for each in runs} >= {task.id for task in tasks[:20]}
        async with emitting(again.url.removeprefix("http://")) as socket:
            await emit(socket, *pending)
        runs = (await client.post("/task_runs/filter", json={})).json()
    assert sorted(each["id"] for each in runs) == sorted(task.id for task in tasks)
    assert {each["state_name"] for each in runs} == {"Pending"}
    assert await verify(database, datetime.now(UTC)) == []


@pytest.mark.parametrize(("size", "number"), [(MOST_BYTES, 1), (0, MOST_WAITING)], ids=["bytes", "events"])
async def test_an_event_waits_while_the_waiting_ones_are_too_large_or_too_many(
    app: Starlette, size: int, number: int
) -> None:
    event = {"event": "x", "occurred": "2026-01-01T00:00:00Z", "resource": {"prefect.resource.id": "y"}}
    recorder = Recorder(app.state.batcher)
    taken = [await recorder.take(event, size, actor="me") for _ in range(number)]
    last = asyncio.create_task(recorder.take(event, 1, actor="me"))
    await asyncio.sleep(0)
    assert (recorder.is_full, last.done()) == (True, False)

    recorder.start()

    await asyncio.gather(*taken, await last)
    await recorder.close()
    assert recorder.held == 0
