"""Pools and queues at work, as the client's command line asks for them; flows and limits that are changed by id."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from tests.prefect.test_pools import deployed, run_of


@pytest.fixture
async def api(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200/api") as client:
        assert (await client.post("/work_pools/", json={"name": "swim", "concurrency_limit": 9})).status_code == 201
        yield client


async def started(api: httpx.AsyncClient, number: int) -> tuple[dict[str, Any], list[str]]:
    """Create flow runs in the default queue of the pool, and start them. Return the queue and their ids."""
    deployment = await deployed(api, work_pool_name="swim")
    runs = [(await run_of(api, deployment))["id"] for _ in range(number)]
    for each in runs:
        await api.post(f"/flow_runs/{each}/set_state", json={"state": {"type": "RUNNING"}})
    (queue,) = (await api.post("/work_pools/swim/queues/filter", json={})).json()
    return queue, runs


async def test_the_runs_that_hold_slots_are_listed_by_queue(api: httpx.AsyncClient) -> None:
    queue, runs = await started(api, 3)
    await run_of(api, await deployed(api, work_pool_name="swim"))
    assert (
        await api.post("/work_pools/swim/queues/", json={"name": "slow", "concurrency_limit": 1})
    ).status_code == 201

    shown = (await api.post("/work_pools/swim/concurrency_status", json={"flow_run_limit": 2})).json()
    parts = [shown[name] for name in ("active_slots", "concurrency_limit", "count", "pages", "page")]
    assert parts == [3, 9, 2, 1, 1]
    default, slow = sorted(shown["queues"], key=lambda each: each["queue_name"])
    assert (slow["queue_name"], slow["active_slots"], slow["flow_runs"], slow["concurrency_limit"]) == (
        "slow",
        0,
        [],
        1,
    )
    assert [each["id"] for each in default["flow_runs"]] == runs[:2]
    assert (default["active_slots"], default["flow_run_count"]) == (3, 3)

    second = {"page": 2, "limit": 2}
    page = (await api.post(f"/work_queues/{queue['id']}/concurrency_status", json=second)).json()
    assert [each["id"] for each in page["flow_runs"]] == runs[2:]
    assert page["flow_runs"][0]["state_type"] == "RUNNING"
    assert page["flow_runs"][0]["time_in_current_state"] >= 0
    assert [page[name] for name in ("active_slots", "count", "limit", "pages", "page")] == [3, 3, 2, 2, 2]
    last = (await api.post("/work_pools/swim/concurrency_status", json=second)).json()
    assert (last["queues"], last["count"]) == ([], 2)


async def test_a_queue_that_is_polled_and_has_no_late_run_is_healthy(api: httpx.AsyncClient) -> None:
    queue, _ = await started(api, 0)
    path = f"/work_queues/{queue['id']}"
    assert (await api.get(f"{path}/status")).json()["healthy"] is False

    run = await run_of(api, await deployed(api, work_pool_name="swim"))
    (due,) = (await api.post(f"{path}/get_runs", json={"limit": 5})).json()
    assert due["id"] == run["id"]
    await api.post("/work_pools/swim/get_scheduled_flow_runs", json={})
    polled = (await api.get(f"{path}/status")).json()
    assert (polled["healthy"], polled["late_runs_count"], bool(polled["last_polled"])) == (True, 0, True)

    late = {"state": {"type": "SCHEDULED", "name": "Late"}, "force": True}
    assert (await api.post(f"/flow_runs/{run['id']}/set_state", json=late)).json()["status"] == "ACCEPT"
    assert (await api.get(f"{path}/status")).json()["late_runs_count"] == 1


async def test_flows_and_limits_of_tags_are_changed_by_id(api: httpx.AsyncClient) -> None:
    flow = (await api.post("/flows/", json={"name": "etl", "labels": {"a": 1}})).json()
    assert (await api.patch(f"/flows/{flow['id']}", json={"tags": ["x"]})).status_code == 204
    read = (await api.get(f"/flows/{flow['id']}")).json()
    assert (read["tags"], read["labels"]) == (["x"], {"a": 1})

    limit = (await api.post("/concurrency_limits/", json={"tag": "db", "concurrency_limit": 2})).json()
    other = (await api.post("/v2/concurrency_limits/", json={"name": "db", "limit": 1})).json()
    assert (await api.get(f"/concurrency_limits/{limit['id']}")).json() == limit
    assert (await api.get(f"/concurrency_limits/{other['id']}")).status_code == 404
    assert (await api.delete(f"/concurrency_limits/{limit['id']}")).status_code == 200
    assert (await api.get("/concurrency_limits/tag/db")).status_code == 404
