"""Deployments, pools and workers, as the client uses them over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

SCHEDULE = {"interval": 3600.0, "anchor_date": "2026-01-01T00:00:00Z", "timezone": "UTC"}
FAR = "2026-12-01 00:00:00+00:00"


@pytest.fixture
async def api(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200/api") as client:
        yield client


async def deployed(api: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    flow = (await api.post("/flows/", json={"name": "etl"})).json()
    made = await api.post("/deployments/", json={"name": "nightly", "flow_id": flow["id"], **more})
    assert made.status_code in (200, 201), made.text
    deployment: dict[str, Any] = made.json()
    return deployment


async def run_of(api: httpx.AsyncClient, deployment: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = await api.post(f"/deployments/{deployment['id']}/create_flow_run", json={"state": None, **more})
    assert made.status_code == 201, made.text
    run: dict[str, Any] = made.json()
    return run


async def test_of_two_workers_that_get_a_run_one_starts_it(api: httpx.AsyncClient) -> None:
    assert (await api.post("/work_pools/", json={"name": "swim", "type": "process"})).status_code == 201
    run = await run_of(api, await deployed(api, work_pool_name="swim"))
    polls = [(await api.post("/work_pools/swim/get_scheduled_flow_runs", json={})).json() for _ in range(2)]
    assert [[each["flow_run"]["id"] for each in poll] for poll in polls] == [[run["id"]]] * 2
    assert polls[0][0]["flow_run"]["work_pool_name"] == "swim"
    answers = [await api.post(f"/flow_runs/{run['id']}/set_state", json={"state": {"type": "PENDING"}}) for _ in polls]
    assert [each.json()["status"] for each in answers] == ["ACCEPT", "ABORT"]
    assert (await api.post("/work_pools/swim/get_scheduled_flow_runs", json={})).json() == []


async def test_a_run_whose_input_has_no_schema_yet_is_resumed_later(api: httpx.AsyncClient) -> None:
    run = await run_of(api, await deployed(api))
    path, details = f"/flow_runs/{run['id']}", {"run_input_keyset": {"schema": "schema", "response": "answer"}}
    for state in ({"type": "RUNNING"}, {"type": "PAUSED", "state_details": details}):
        await api.post(f"{path}/set_state", json={"state": state, "force": True})
    early = await api.post(f"{path}/resume", json={"run_input": None})
    assert (early.status_code, early.headers["Retry-After"]) == (503, "1")
    schema = '{"type": "object", "required": ["word"]}'
    assert (await api.post(f"{path}/input", json={"key": "schema", "value": schema})).status_code == 201
    refused = (await api.post(f"{path}/resume", json={"run_input": None})).json()
    assert refused["status"] == "REJECT"
    assert "required" in refused["details"]["reason"]
    assert (await api.post(f"{path}/resume", json={"run_input": {"word": "ja"}})).json()["status"] == "ACCEPT"


async def test_the_status_of_a_pool_follows_its_workers(api: httpx.AsyncClient) -> None:
    pool = (await api.post("/work_pools/", json={"name": "swim"})).json()
    assert pool["status"] == "NOT_READY"
    assert (await api.post("/work_pools/", json={"name": "swim"})).status_code == 409
    beat = {"name": "w", "heartbeat_interval_seconds": 30}
    assert (await api.post("/work_pools/swim/workers/heartbeat", json=beat)).status_code == 204
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    (worker,) = (await api.post("/work_pools/swim/workers/filter", json=online)).json()
    assert (worker["name"], worker["status"]) == ("w", "ONLINE")
    assert (await api.get("/work_pools/swim")).json()["status"] == "READY"
    await api.patch("/work_pools/swim", json={"is_paused": True, "concurrency_limit": 3})
    await api.patch("/work_pools/swim", json={"concurrency_limit": None})
    changed = (await api.get("/work_pools/swim")).json()
    assert (changed["status"], changed["is_paused"], changed["concurrency_limit"]) == ("PAUSED", True, None)
    assert (await api.delete("/work_pools/swim")).status_code == 204
    assert (await api.get("/work_pools/swim")).status_code == 404


async def test_queues_of_a_pool_are_made_read_and_deleted(api: httpx.AsyncClient) -> None:
    pool = (await api.post("/work_pools/", json={"name": "swim"})).json()
    made = await api.post("/work_pools/swim/queues", json={"name": "fast", "priority": 1, "description": None})
    assert made.status_code == 201
    listed = (await api.post("/work_pools/swim/queues/filter", json={"work_queues": None})).json()
    assert [(each["name"], each["priority"]) for each in listed] == [("fast", 1), ("default", 2)]
    assert pool["default_queue_id"] == listed[1]["id"]
    assert (await api.get(f"/work_queues/{listed[0]['id']}")).json()["work_pool_name"] == "swim"
    assert (await api.delete("/work_pools/swim/queues/fast")).status_code == 204
    assert (await api.get("/work_pools/swim/queues/fast")).status_code == 404


async def test_a_runner_polls_its_deployments(api: httpx.AsyncClient) -> None:
    deployment = await deployed(api, parameters={"x": 1}, tags=["kept"], concurrency_limit=5)
    assert deployment["status"] == "NOT_READY"
    assert deployment["global_concurrency_limit"]["limit"] == 5
    run = await run_of(api, deployment, parameters={"x": 2}, idempotency_key="once")
    assert (run["parameters"], run["tags"]) == ({"x": 2}, ["kept"])
    again = await api.post(f"/deployments/{deployment['id']}/create_flow_run", json={"idempotency_key": "once"})
    assert (again.status_code, again.json()["id"]) == (200, run["id"])
    wanted = {"deployment_ids": [deployment["id"]], "scheduled_before": FAR}
    polled = (await api.post("/deployments/get_scheduled_flow_runs", json=wanted)).json()
    assert [each["id"] for each in polled] == [run["id"]]
    assert (await api.get(f"/deployments/{deployment['id']}")).json()["status"] == "READY"


async def test_a_schedule_is_read_as_it_was_sent(api: httpx.AsyncClient) -> None:
    rules = [SCHEDULE, {"cron": "0 5 * * *", "day_or": True, "timezone": "UTC"}, {"rrule": "FREQ=DAILY"}]
    deployment = await deployed(api, schedules=[{"schedule": rule, "active": False} for rule in rules])
    found = [each["schedule"] for each in deployment["schedules"]]
    assert found == [rules[0], rules[1], {"rrule": "FREQ=DAILY", "timezone": "UTC"}]
    path = f"/deployments/{deployment['id']}/schedules"
    (added,) = (await api.post(path, json=[{"schedule": SCHEDULE, "slug": "hourly"}])).json()
    assert (added["active"], added["slug"]) == (True, "hourly")
    assert (await api.patch(f"{path}/{added['id']}", json={"active": False})).status_code == 204
    assert (await api.delete(f"{path}/{added['id']}")).status_code == 204
    assert len((await api.get(path)).json()) == len(rules)


TRIGGER = {
    "type": "compound",
    "require": "all",
    "within": 60.0,
    "triggers": [
        {
            "type": "event",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": [{"prefect.resource.role": "flow", "prefect.resource.name": ["a", "b"]}],
            "after": [],
            "expect": ["prefect.flow-run.Failed", "order.placed"],
            "for_each": ["prefect.resource.id", "related:flow:prefect.resource.id"],
            "posture": "Reactive",
            "threshold": 2,
            "within": 10.0,
        },
        {"type": "sequence", "within": None, "triggers": []},
    ],
}
ACTIONS: list[dict[str, Any]] = [
    {"type": "do-nothing"},
    {"type": "cancel-flow-run"},
    {"type": "pause-work-pool", "source": "inferred", "work_pool_id": None},
    {"type": "change-flow-run-state", "state": "FAILED", "name": "Stopped", "message": None, "force": True},
]


async def test_an_automation_is_read_as_it_was_sent(api: httpx.AsyncClient) -> None:
    trigger: dict[str, Any] = {**TRIGGER, "triggers": TRIGGER["triggers"][:1]}  # type: ignore[index]
    sent = {"name": "a", "description": "", "enabled": True, "tags": ["t"], "trigger": trigger, "actions": ACTIONS}
    owned = {"owner_resource": "prefect.deployment.4"}
    made = (await api.post("/automations/", json={**sent, **owned})).json()
    read = (await api.get(f"/automations/{made['id']}")).json()
    inner = read["trigger"]["triggers"][0]
    assert (read["trigger"].pop("id"), inner.pop("id")) != (None, None)
    expected = sorted(inner.pop("expect"))
    wanted = {**trigger["triggers"][0]}
    assert expected == sorted(wanted.pop("expect"))
    assert inner == wanted
    assert {name: read[name] for name in sent if name != "trigger"} == {n: sent[n] for n in sent if n != "trigger"}
    related = (await api.get("/automations/related-to/prefect.deployment.4")).json()
    assert [each["id"] for each in related] == [made["id"]]
    assert (await api.delete("/automations/owned-by/prefect.deployment.4")).status_code == 202
    assert (await api.get(f"/automations/{made['id']}")).status_code == 404


async def test_secrets_of_blocks_are_shown_when_they_are_asked_for(api: httpx.AsyncClient) -> None:
    kind = (await api.post("/block_types/", json={"name": "Shelf", "slug": "shelf"})).json()
    fields = {"properties": {"code": {"type": "string"}}, "secret_fields": ["code"], "block_type_slug": "shelf"}
    schema = (await api.post("/block_schemas/", json={"fields": fields, "block_type_id": kind["id"]})).json()
    assert (await api.get(f"/block_schemas/checksum/{schema['checksum']}")).json()["block_type"]["slug"] == "shelf"
    document = {"name": "mine", "data": {"code": "hush"}, "block_schema_id": schema["id"], "block_type_id": kind["id"]}
    made = (await api.post("/block_documents/", json=document)).json()
    assert made["data"] == {"code": "********"}
    path = "/block_types/slug/shelf/block_documents/name/mine"
    assert (await api.get(path)).json()["data"] == {"code": "********"}
    assert (await api.get(f"{path}?include_secrets=true")).json()["data"] == {"code": "hush"}
    assert (await api.post("/block_documents/", json=document)).status_code == 409
    assert (await api.post("/block_documents/count", json={})).json() == 1
