"""The client's filter of events: in SQL over HTTP, and in memory for subscribers."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.prefect.event_filters import EventFilter
from runstate.rows import Event

EVENTS: list[dict[str, Any]] = [
    {
        "id": "00000000-0000-7000-8000-000000000001",
        "event": "order.placed",
        "occurred": "2026-01-01T12:00:01Z",
        "resource": {"prefect.resource.id": "order.1", "colour": "red"},
        "related": [{"prefect.resource.id": "customer.4", "prefect.resource.role": "customer"}],
        "payload": {"amount": 12},
    },
    {
        "id": "00000000-0000-7000-8000-000000000002",
        "event": "order.paid",
        "occurred": "2026-01-01T12:00:02Z",
        "resource": {"prefect.resource.id": "order.2", "prefect.resource.name": "Two", "prefect.state-type": "PAID"},
        "related": [{"prefect.resource.id": "customer.4", "prefect.resource.role": "payer"}],
        "follows": "00000000-0000-7000-8000-000000000001",
    },
    {
        "id": "00000000-0000-7000-8000-000000000003",
        "event": "prefect.flow-run.heartbeat",
        "occurred": "2026-01-01T12:00:03Z",
        "resource": {"prefect.resource.id": "prefect.flow-run.3"},
    },
]
SERVER = "prefect.flow.created"
"""The event that the server tells of a new flow, as the client knows it."""

CASES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"order.placed", "order.paid", "prefect.flow-run.heartbeat", SERVER}),
    ({"event": {"name": ["order.paid", SERVER]}}, {"order.paid", SERVER}),
    ({"event": {"prefix": ["order.", "prefect.flow"]}}, {"order.placed", "order.paid", SERVER, EVENTS[2]["event"]}),
    ({"event": {"prefix": ["prefect.flow-"]}}, {"prefect.flow-run.heartbeat"}),
    ({"event": {"prefix": ["pre"], "exclude_name": [SERVER]}}, {"prefect.flow-run.heartbeat"}),
    ({"event": {"exclude_prefix": ["order", "prefect.flow."]}}, {"prefect.flow-run.heartbeat"}),
    ({"resource": {"id": ["order.1", "order.9"]}}, {"order.placed"}),
    ({"resource": {"id_prefix": ["prefect.flow."]}}, {SERVER}),
    ({"resource": {"labels": {"colour": ["r*"]}}}, {"order.placed"}),
    ({"resource": {"labels": {"prefect.resource.id": "order.*", "colour": "red"}}}, {"order.placed"}),
    ({"resource": {"labels": {"prefect.resource.id": ["prefect.flow.*"]}}}, {SERVER}),
    ({"resource": {"labels": {"prefect.resource.id": "!prefect.flow*"}}}, {"order.placed", "order.paid"}),
    ({"resource": {"labels": {"prefect.state-type": ["PAID"]}}}, {"order.paid"}),
    ({"resource": {"labels": {"prefect.resource.name": ["T?o", "made"]}}}, {"order.paid", SERVER}),
    ({"related": {"id": ["customer.4"], "role": ["payer"]}}, {"order.paid"}),
    ({"related": [{"role": ["payer"]}, {"id": ["customer.5"]}]}, set()),
    ({"related": {"resources_in_roles": [["customer.4", "customer"]]}}, {"order.placed"}),
    ({"related": None, "any_resource": {"id": ["customer.4", "prefect.flow-run.3"]}}, {e["event"] for e in EVENTS}),
    ({"any_resource": {"id_prefix": ["order.2"]}}, {"order.paid"}),
    ({"id": {"id": [EVENTS[0]["id"]]}}, {"order.placed"}),
    ({"id": {"id": []}, "event": {"name": ["order.paid"]}}, {"order.paid"}),
    (
        {"occurred": {"since": "2026-01-01T12:00:02Z", "until": "2026-01-02T00:00:00Z"}},
        {"order.paid", EVENTS[2]["event"]},
    ),
]  # fmt: skip


@pytest.fixture
async def api(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200/api") as client:
        assert (await client.post("/flows/", json={"name": "made"})).status_code == 201
        assert (await client.post("/events", json=EVENTS)).status_code == 204
        yield client


async def test_a_filter_selects_the_same_in_sql_and_in_memory(api: httpx.AsyncClient, app: Starlette) -> None:
    async with app.state.database.read() as connection:
        rows = (await connection.execute(sa.select(*Event.__table__.columns))).mappings().all()
    for given, expected in CASES:
        page = (await api.post("/events/filter", json={"filter": given})).json()
        assert {each["event"] for each in page["events"]} == expected, given
        assert page["total"] == len(expected)
        wanted = EventFilter.model_validate(given)
        found = {str(each.id) for each in (Event.of(dict(row)) for row in rows) if wanted.match(each)}
        assert found == {each["id"] for each in page["events"]}, given


async def test_texts_are_searched(api: httpx.AsyncClient) -> None:
    page = (await api.post("/events/filter", json={"filter": {"text": {"query": "customer.4 -payer"}}})).json()
    assert [each["event"] for each in page["events"]] == ["order.placed"]


async def test_pages_of_events_lead_to_the_next(api: httpx.AsyncClient) -> None:
    wanted = {"filter": {"event": {"prefix": ["order"]}, "order": "ASC"}, "limit": 1}
    page = (await api.post("/events/filter", json=wanted)).json()
    names = [each["event"] for each in page["events"]]
    while page["next_page"]:
        page = (await api.get(page["next_page"])).json()
        names += [each["event"] for each in page["events"]]
    assert names == ["order.placed", "order.paid"]
    assert (await api.get("/events/filter/next?page-token=e30x")).status_code == 422


async def test_an_event_is_read_as_it_was_sent(api: httpx.AsyncClient) -> None:
    page = (await api.post("/events/filter", json={"filter": {"event": {"name": ["order.paid"]}}})).json()
    (read,) = page["events"]
    sent = {name: value for name, value in EVENTS[1].items() if name != "occurred"}
    assert read["occurred"].startswith("2026-01-01T12:00:02")
    assert {name: read[name] for name in sent} == sent
