"""Other work of a client: it reads and follows runs, writes logs, artifacts and variables, and keeps results."""

import asyncio
import logging
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from runstate.client import (
    AsyncClient,
    Client,
    LocalStorage,
    MissingResult,
    RefusedError,
    RunHandler,
    State,
    UnreachableError,
    storage_at,
)
from runstate.client.records import FlowRunRecord
from runstate.client.states import AwaitingRetry, Completed, Late, Paused, Scheduled, Suspended
from runstate.documents.states import RunKind
from tests.client import Ask
from tests.graphql.mutations import create, make_flow_run, propose
from tests.subscribing import Listening


async def test_records_have_the_members_that_were_selected(aclient: AsyncClient, ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:db", limit=3)
    async with aclient.flow_run("etl", tags=["a"]) as run:
        await run.task("load").arun(asyncio.sleep, 0)
    (found,) = [each async for each in aclient.flow_runs({"flow": {"name": {"eq": "etl"}}})]
    (task,) = [each async for each in aclient.task_runs()]
    (limit,) = [each async for each in aclient.limits()]

    assert (found.id, found.flow.name, found.tags, found.state_name) == (run.id, "etl", ["a"], "Completed")
    assert (task.task_key, task.flow_run_id) == ("load", run.id)
    assert (limit.name, limit.limit, limit.active_slots) == ("tag:db", 3, 0)
    assert [each.name for each in await aclient.states(run.id)] == ["Pending", "Running", "Completed"]
    assert [each.name async for each in aclient.flows()] == ["etl"]
    assert [each async for each in aclient.deployments()] == []
    assert await aclient.get(FlowRunRecord, run.id) == found


async def test_transitions_are_followed_by_cursors(aclient: AsyncClient) -> None:
    cursor = (await aclient.execute("{ transitionCursor }"))["transitionCursor"]
    async with aclient.flow_run("etl"):
        pass
    names = list[str]()
    async with aclosing(aclient.transitions(after=cursor)) as batches:
        async for batch in batches:
            names += [each.state_name for each in batch.transitions]
            if len(names) == 3:
                break
    assert names == ["Pending", "Running", "Completed"]


async def test_a_run_is_awaited(aclient: AsyncClient, ask: Ask) -> None:
    run = await make_flow_run(ask)
    waiting = asyncio.create_task(aclient.wait_for(run))
    await propose(ask, run, "RUNNING")
    await propose(ask, run, {"type": "COMPLETED", "data": [1]})
    assert await (await waiting).aresult() == [1]
    with pytest.raises(RefusedError, match="No run has the id"):
        await aclient.wait_for("nothing")


async def test_records_of_logging_belong_to_the_run(client: Client, ask: Ask) -> None:
    log = logging.getLogger("etl")

    def script() -> str:
        handler = RunHandler()
        log.addHandler(handler)
        try:
            log.warning("outside")
            with client.flow_run("etl") as run:
                log.warning("in the flow")
                run.task("load").run(log.warning, "in the %s", "task")
        finally:
            log.removeHandler(handler)
        client.flush()
        return run.id

    run = await asyncio.to_thread(script)
    found = await ask("query($run: ID!) { logs(tree: $run) { nodes { message logger taskRunId } } }", run=run)
    lines = [(each["message"], each["logger"], each["taskRunId"] is None) for each in found["logs"]["nodes"]]
    assert lines == [("in the flow", "etl", True), ("in the task", "etl", False)]


async def test_artifacts_and_variables(aclient: AsyncClient, ask: Ask) -> None:
    async with aclient.flow_run("etl") as run:
        artifact = await aclient.artifact(key="report", type="markdown", data="# Done")
    await aclient.set_variable("region", "north")
    await aclient.set_variable("region", "south")

    assert await aclient.variable("region") == "south"
    assert await aclient.variable("nothing", 5) == 5
    found = await ask("query($id: ID!) { artifact(id: $id) { flowRunId data } }", id=artifact)
    assert found["artifact"] == {"flowRunId": run.id, "data": "# Done"}


@pytest.mark.parametrize("value", ["x" * 600_000, {"type": "unpersisted"}, {"storage_key": 1}, [None], {1: 2}, (1,)])
async def test_a_storage_keeps_any_result(server: Listening, tmp_path: Path, value: Any, kind: str) -> None:
    if kind == "postgresql":
        pytest.skip("results do not depend on the database")
    async with AsyncClient(server.address, storage=LocalStorage(tmp_path), allow_pickle=True) as client:
        run = client.flow_run("etl")

        async def body() -> Any:
            return value

        await run.arun(body)
        state = await client.wait_for(run)
        assert await state.aresult(allow_pickle=True) == value


async def test_results_are_kept_at_a_url_of_fsspec(server: Listening, kind: str) -> None:
    if kind == "postgresql":
        pytest.skip("results do not depend on the database")
    url = f"memory://results/{uuid4()}"
    async with AsyncClient(server.address, storage=storage_at(url)) as client:
        run = client.flow_run("etl")

        async def body() -> str:
            return "x" * 600_000

        await run.arun(body)
    async with AsyncClient(server.address, storage=storage_at(url)) as other:
        assert await (await other.wait_for(run)).aresult() == "x" * 600_000
    with pytest.raises(ValueError, match="cannot be read"):
        storage_at(url).read("missing")
    with pytest.raises(ValueError, match="leads out of"):
        storage_at(url).read("../secret")


async def test_a_result_that_was_not_kept_is_missing(aclient: AsyncClient) -> None:
    run = aclient.flow_run("etl")

    async def body() -> Any:
        return object()

    await run.arun(body)
    with pytest.raises(MissingResult, match="was not kept"):
        (await aclient.wait_for(run)).result()


def test_a_key_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leads out of"):
        LocalStorage(tmp_path / "in").read("../secret")


def test_states_have_constructors_and_copies() -> None:
    late = Late()
    assert (late.name, late.is_scheduled(), late.is_final()) == ("Late", True, False)
    assert AwaitingRetry(scheduled_time=late.timestamp).state_details.scheduled_time == late.timestamp
    assert Suspended(timeout_seconds=5).state_details.pause_reschedule
    copy = late.fresh_copy(message="again")
    assert (copy.id != late.id, copy.message, copy.timestamp > late.timestamp) == (True, "again", True)
    assert late.model_copy().timestamp > late.timestamp
    assert str(Completed(message="done")) == "Completed('done')"
    assert late == State.model_validate({**late.model_dump(), "id": copy.id})
    with pytest.raises(ValueError, match="not both"):
        Scheduled(scheduled_time=late.timestamp, state_details={"scheduled_time": late.timestamp})
    with pytest.raises(ValueError, match="once"):
        Paused(timeout_seconds=1, pause_expiration_time=late.timestamp)
    run = "0190d9a0-0000-7000-8000-000000000000"
    details = Completed(state_details={"flow_run_id": run}).state_details
    assert str(details.to_run_result(RunKind.FLOW_RUN)["id"]) == run
    with pytest.raises(ValueError, match="does not belong to a task run"):
        details.to_run_result("task_run")


def test_an_unreachable_server_is_named() -> None:
    client = Client("http://127.0.0.1:1", patience=0)
    with pytest.raises(UnreachableError, match="No server answers at http"):
        client.execute("{ __typename }")
    client.close()


async def test_a_wrong_document_is_refused(aclient: AsyncClient) -> None:
    with pytest.raises(RefusedError, match="Cannot query field"):
        await aclient.execute("{ nothing }")
