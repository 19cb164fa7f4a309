"""The client's filters over HTTP: each operator, the ways between families, orders and pages."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from runstate.database import Database
from runstate.documents.deployments import Actor
from runstate.documents.pools import WorkPoolStorageConfiguration
from runstate.documents.states import StateType
from runstate.errors import Id
from runstate.rows import Artifact, ConcurrencyLimit, Log, WorkPool, WorkQueue
from tests.graphql.factories import (
    at,
    make_deployment,
    make_flow,
    make_flow_run,
    make_limit,
    make_state,
    make_task_run,
    row,
    store,
)

SOMEBODY = Actor(type="SCHEDULE", id=Id("01a21abc-6646-7a89-a8e3-65ecede79fae"), display_value="daily")


def pool(name: str, **columns: Any) -> WorkPool:
    own = {
        "type": "process",
        "base_job_template": {},
        "paused": False,
        "storage_configuration": WorkPoolStorageConfiguration(),
    }
    return row(WorkPool, **{"name": name, **own, **columns})


def queue(pool: WorkPool, name: str, priority: int) -> WorkQueue:
    own = {"work_pool_id": pool.id, "name": name, "priority": priority, "description": ""}
    return row(WorkQueue, **own, paused=False, shows_pause=False, is_default=priority == 1)


def entered(run: Any, type: StateType, name: str | None = None) -> Any:
    state = make_state(run, type=type, name=name or type.value.capitalize())
    return run.replace(state_id=state.id, state_type=state.type, state_name=state.name, state_timestamp=at(1)), state


@pytest.fixture
async def api(app: Starlette, url: str) -> AsyncIterator[httpx.AsyncClient]:
    database = Database(url)
    etl, web = make_flow("etl", tags=["a", "b"]), make_flow("Web_1", tags=["b"])
    swim, lane = pool("swim"), pool("dry", type="docker")
    lanes = [queue(swim, "default", 1), queue(swim, "fast", 2), queue(lane, "default", 1)]
    limit: ConcurrencyLimit = make_limit("own", limit=5)
    nightly = make_deployment(
        etl, "nightly", tags=["x"], work_queue_id=lanes[1].id, work_queue_name="fast", concurrency_limit_id=limit.id
    )
    hourly = make_deployment(web, "hourly", paused=True)
    first, first_state = entered(
        make_flow_run(
            etl,
            name="first",
            tags=["shelf"],
            deployment_id=nightly.id,
            work_queue_id=lanes[1].id,
            work_queue_name="fast",
            start_time=at(10),
            end_time=at(20),
            expected_start_time=at(5),
            idempotency_key="once",
            flow_version="2",
            created_by=SOMEBODY,
        ),
        StateType.COMPLETED,
        "Lenient",
    )
    second, second_state = entered(
        make_flow_run(etl, name="second", tags=["shelf", "late"], expected_start_time=at(30), start_time=at(40)),
        StateType.FAILED,
    )
    third, third_state = entered(
        make_flow_run(web, name="third", expected_start_time=at(35), next_scheduled_start_time=at(35)),
        StateType.SCHEDULED,
        "Late",
    )
    loads, loads_state = entered(make_task_run(first, name="load", tags=["io"], start_time=at(11)), StateType.FAILED)
    stand_in = make_task_run(first, name="stand-in")
    alone = make_task_run(name="alone")
    child = make_flow_run(web, name="child", parent_task_run_id=stand_in.id)
    lines = [
        row(Log, logger="a", level=20, message="rain and sun", timestamp=at(1), flow_run_id=first.id, truncated=False),
        row(Log, logger="b", level=40, message="only rain", timestamp=at(2), flow_run_id=first.id, truncated=False),
    ]
    lines[1] = lines[1].replace(task_run_id=loads.id)
    for line in lines:
        line.__dict__.pop("updated")
    made = row(Artifact, key="report", type="markdown", data=1, flow_run_id=first.id)
    await store(
        database,
        *(etl, web, swim, lane, *lanes, limit),
        *(nightly, hourly, first, second, third, loads, stand_in, alone, child),
        *(first_state, second_state, third_state, loads_state, *lines, made, row(Artifact, type="result", data=2)),
    )
    await database.close()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200/api") as client:
        yield client


CASES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("flows", {}, {"etl", "Web_1"}),
    ("flows", {"flows": None}, {"etl", "Web_1"}),
    ("flows", {"flows": {"name": {"any_": ["etl", "none"]}}}, {"etl"}),
    ("flows", {"flows": {"name": {"any_": []}}}, set()),
    ("flows", {"flows": {"name": {"like_": "WEB_"}}}, {"Web_1"}),
    ("flows", {"flows": {"name": {"like_": "t_l"}}}, set()),
    ("flows", {"flows": {"tags": {"all_": ["a", "b"]}}}, {"etl"}),
    ("flows", {"flows": {"tags": {"is_null_": True}}}, set()),
    ("flows", {"flows": {"deployment": {"is_null_": False}}}, {"etl", "Web_1"}),
    ("flows", {"flow_runs": {"name": {"any_": ["second"]}}}, {"etl"}),
    ("flows", {"task_runs": {"name": {"any_": ["load"]}}}, {"etl"}),
    ("flows", {"deployments": {"name": {"any_": ["hourly"]}}}, {"Web_1"}),
    ("flows", {"work_pools": {"name": {"any_": ["swim"]}}}, {"etl"}),
    ("flow_runs", {}, {"first", "second", "third", "child"}),
    ("flow_runs", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"state": {"type": {"not_any_": ["COMPLETED"]}}}}, {"second", "third"}),
    ("flow_runs", {"flow_runs": {"state": {"name": {"any_": ["Late", "Lenient"]}}}}, {"first", "third"}),
    (
        "flow_runs",
        {
            "flow_runs": {
                "state": {"operator": "or_", "type": {"any_": ["FAILED"]}, "name": {"any_": ["Late"]}},
                "tags": None,
            }
        },
        {"second", "third"},
    ),
    (
        "flow_runs",
        {"flow_runs": {"operator": "or_", "name": {"any_": ["child"]}, "tags": {"all_": ["late"]}}},
        {"second", "child"},
    ),
    ("flow_runs", {"flow_runs": {"operator": "and_", "name": {"like_": "IR"}, "tags": {"any_": ["shelf"]}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"tags": {"is_null_": True}}}, {"third", "child"}),
    ("flow_runs", {"flow_runs": {"deployment_id": {"is_null_": False}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"work_queue_name": {"any_": ["fast"]}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"flow_version": {"any_": ["2"]}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"start_time": {"after_": "2026-01-01T12:00:40Z"}}}, {"second"}),
    ("flow_runs", {"flow_runs": {"start_time": {"before_": "2026-01-01 12:00:10"}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"start_time": {"is_null_": True}}}, {"third", "child"}),
    ("flow_runs", {"flow_runs": {"end_time": {"is_null_": False}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"expected_start_time": {"after_": "2026-01-01T13:00:30+01:00"}}}, {"second", "third"}),
    ("flow_runs", {"flow_runs": {"next_scheduled_start_time": {"before_": "2026-01-01T12:00:35Z"}}}, {"third"}),
    ("flow_runs", {"flow_runs": {"parent_task_run_id": {"is_null_": False}}}, {"child"}),
    ("flow_runs", {"flow_runs": {"idempotency_key": {"any_": ["once"]}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"created_by": {"type_": ["SCHEDULE"], "id_": [SOMEBODY.id]}}}, {"first"}),
    ("flow_runs", {"flow_runs": {"created_by": {"is_null_": True}}}, {"second", "third", "child"}),
    ("flow_runs", {"flows": {"name": {"any_": ["etl"]}}}, {"first", "second"}),
    ("flow_runs", {"flows": {"name": None}, "task_runs": {}}, {"first", "second", "third", "child"}),
    ("flow_runs", {"task_runs": {"state": {"type": {"any_": ["FAILED"]}}}}, {"first"}),
    ("flow_runs", {"deployments": {"tags": {"all_": ["x"]}}}, {"first"}),
    ("flow_runs", {"work_pools": {"type": {"any_": ["process"]}}}, {"first"}),
    ("flow_runs", {"work_pool_queues": {"name": {"startswith_": ["fa"]}}}, {"first"}),
    ("task_runs", {}, {"load", "stand-in", "alone"}),
    ("task_runs", {"task_runs": {"flow_run_id": {"is_null_": True}}}, {"alone"}),
    ("task_runs", {"task_runs": {"subflow_runs": {"exists_": True}}}, {"stand-in"}),
    ("task_runs", {"task_runs": {"subflow_runs": {"exists_": False}}}, {"load", "alone"}),
    ("task_runs", {"task_runs": {"tags": {"all_": ["io"]}}}, {"load"}),
    ("task_runs", {"flow_runs": {"name": {"any_": ["first"]}}}, {"load", "stand-in"}),
    ("task_runs", {"flows": {"name": {"any_": ["etl"]}}, "deployments": {"name": {"any_": ["hourly"]}}}, set()),
    ("task_runs", {"work_pools": {"name": {"any_": ["swim"]}}}, {"load", "stand-in"}),
    ("deployments", {"deployments": {"paused": {"eq_": True}}}, {"hourly"}),
    ("deployments", {"deployments": {"concurrency_limit": {"ge_": 5, "le_": 5}}}, {"nightly"}),
    ("deployments", {"deployments": {"concurrency_limit": {"is_null_": True}}}, {"hourly"}),
    ("deployments", {"deployments": {"flow_or_deployment_name": {"like_": "web"}}}, {"hourly"}),
    ("deployments", {"deployments": {"work_queue_name": {"any_": ["fast"]}}}, {"nightly"}),
    ("deployments", {"flow_runs": {"name": {"any_": ["first"]}}}, {"nightly"}),
    ("deployments", {"work_pools": {"name": {"any_": ["dry"]}}}, set()),
    ("work_pools", {"work_pools": {"type": {"any_": ["docker"]}}}, {"dry"}),
    ("logs", {"logs": {"level": {"ge_": 30}}}, {"b"}),
    ("logs", {"logs": {"level": {"le_": 30}, "task_run_id": {"is_null_": True}}}, {"a"}),
    ("logs", {"logs": {"timestamp": {"after_": "2026-01-01T12:00:02Z"}}}, {"b"}),
    ("logs", {"logs": {"text": {"query": "+rain -sun"}}}, {"b"}),
    ("artifacts", {"artifacts": {"key": {"exists_": True}}}, {"report"}),
    ("artifacts", {"artifacts": {"type": {"not_any_": ["result"]}, "key": {"like_": "REP"}}}, {"report"}),
    ("artifacts", {"flow_runs": {"name": {"any_": ["first"]}}}, {"report"}),
    ("artifacts", {"flows": {"name": {"any_": ["Web_1"]}}}, set()),
]


async def test_each_filter_selects_what_meets_it(api: httpx.AsyncClient) -> None:
    for family, body, expected in CASES:
        reply = await api.post(f"/{family}/filter", json=body)
        assert reply.status_code == 200, (family, body, reply.text)
        named = "key" if family == "artifacts" else "name"
        assert {each[named] for each in reply.json()} == expected, (family, body)
        number = await api.post(f"/{family}/count", json=body)
        assert number.json() == len(expected), (family, body)


ORDERS = [
    ("flow_runs", {"sort": "START_TIME_ASC"}, ["first", "third", "second", "child"]),
    ("flow_runs", {"sort": "START_TIME_DESC", "limit": 2, "offset": 1}, ["third", "first"]),
    ("flow_runs", {"sort": "EXPECTED_START_TIME_DESC"}, ["third", "second", "first", "child"]),
    ("flow_runs", {"sort": "NAME_DESC", "limit": 1}, ["third"]),
    ("flow_runs", {"sort": "END_TIME_DESC", "limit": 1}, ["first"]),
    ("flow_runs", {"sort": None, "limit": None, "offset": None}, ["child", "third", "second", "first"]),
    ("flow_runs", {"limit": 0}, []),
    ("flows", {}, ["Web_1", "etl"]),
    ("flows", {"offset": 5}, []),
    ("logs", {}, ["a", "b"]),
    ("logs", {"sort": "TIMESTAMP_DESC"}, ["b", "a"]),
]


async def test_pages_have_an_order(api: httpx.AsyncClient) -> None:
    for family, body, expected in ORDERS:
        found = [each["name"] for each in (await api.post(f"/{family}/filter", json=body)).json()]
        assert found == expected, (family, body)


@pytest.mark.parametrize(
    "body",
    [
        {"flow_runs": {"nome": {"any_": ["x"]}}},
        {"flow_runs": {"name": {"any": ["x"]}}},
        {"flow_runs": {"id": {"any_": ["no id"]}}},
        {"flow_runs": {"state": {"type": {"any_": ["DONE"]}}}},
        {"flow_runs": {"name": {"any_": ["a\0"]}}},
        {"flow_runs": {"operator": "xor_"}},
        {"sort": "COLOUR_ASC"},
        {"limit": 201},
        {"limit": -1},
        {"offset": -1},
    ],
)
async def test_a_wrong_filter_is_refused_with_its_place(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    reply = await api.post("/flow_runs/filter", json=body)
    assert reply.status_code == 422
    (mistake, *_) = reply.json()["exception_detail"]
    assert mistake["loc"][:2] == ["body", next(iter(body))]


async def test_a_page_of_runs_takes_one_statement(api: httpx.AsyncClient, app: Starlette) -> None:
    await api.post("/flow_runs/filter", json={})
    before = app.state.database.statements
    await api.post("/flow_runs/filter", json={"flows": {"name": {"any_": ["etl"]}}})
    assert app.state.database.statements - before <= 1
