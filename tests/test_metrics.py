"""Metrics for Prometheus."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path

import httpx
import pytest
from graphql import GraphQLError
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from strawberry.types import ExecutionResult
from structlog.testing import capture_logs

from runstate.app import build_app, clock
from runstate.database import Database
from runstate.database.sqlite import READERS
from runstate.errors import SlowConsumer
from runstate.graphql.context import Context
from runstate.graphql.errors import extensions
from runstate.graphql.transport.observability import Observer
from runstate.graphql.transport.request import GraphQLRequest
from runstate.measuring import Meter
from runstate.metrics import Metrics
from runstate.settings import Settings
from tests.client import Ask, asking, running
from tests.credentials import Keys, asking_with
from tests.subscribing import Listening, Socket, connected, listening

PAGE = Path(__file__).parent.parent / "docs" / "operations.md"
PREFLIGHT = {"apollo-require-preflight": "true"}
Figures = Mapping[str, float]


async def figures(client: httpx.AsyncClient) -> Figures:
    """Return all metrics by name and labels, as they are written."""
    reply = await client.get("/metrics")
    assert reply.status_code == 200
    return {
        f"{sample.name}{''.join(f',{value}' for _, value in sorted(sample.labels.items()))}": sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


async def becoming(client: httpx.AsyncClient, wanted: Callable[[Figures], bool]) -> Figures:
    """Return the metrics once they meet a condition."""
    async with asyncio.timeout(30):
        while not wanted(told := await figures(client)):  # noqa: ASYNC110 there is no event to await
            await asyncio.sleep(0.01)
        return told


@pytest.fixture
def client(ask: Ask) -> httpx.AsyncClient:
    return ask.client


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    async with listening(url) as server:
        yield server


@pytest.fixture
async def outside(server: Listening) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{server.address.removesuffix('/graphql')}") as client:
        yield client


@pytest.fixture
async def socket(server: Listening) -> AsyncIterator[Socket]:
    async with connected(server) as socket:
        yield socket


FLOW = 'mutation { createFlow(input: { name: "f" }) { ... on CreateFlowPayload { flow { id } } } }'
RUN = """mutation($flow: ID!) {
    createFlowRun(input: { flowId: $flow, policy: { retries: 1 } }) {
        ... on CreateFlowRunPayload { flowRun { id } } } }"""
PROPOSE = """mutation($run: ID!, $type: StateType!) {
    proposeState(input: { run: { flowRunId: $run }, state: { type: $type } }) {
        ... on OrchestrationResult { status } ... on Problem { code } } }"""


async def test_operations_are_counted_by_type_and_outcome(ask: Ask) -> None:
    await ask("{ __typename }")
    await ask("{ __typename }")
    await ask(FLOW)
    await ask.raw("{ nothing }")
    await ask.raw('{ __typename flows(after: "x") { totalCount } }')
    await ask.client.get("/graphql", params={"query": FLOW}, headers=PREFLIGHT)
    await ask.client.post("/graphql", json=5)

    told = await figures(ask.client)

    assert told["graphql_operations_total,ok,query"] == 2
    assert told["graphql_operations_total,ok,mutation"] == 1
    assert told["graphql_operations_total,failed,query"] == 2
    assert told["graphql_operations_total,refused,mutation"] == 1
    assert told["graphql_operation_duration_seconds_count,query"] == 4
    assert told["graphql_errors_total,BAD_USER_INPUT"] == 1
    assert told["graphql_errors_total,INVALID_INPUT"] == 1
    assert told["graphql_errors_total,BAD_REQUEST"] == 2


async def test_documents_are_measured_once(ask: Ask) -> None:
    for _ in range(3):
        await ask("{ __typename }")

    told = await figures(ask.client)

    assert told["graphql_phase_duration_seconds_count,parse"] == 1
    assert told["graphql_phase_duration_seconds_count,validate"] == 1
    assert told["graphql_documents_total,hit"] >= 2
    assert told["graphql_documents_total,miss"] == 1
    assert told["graphql_operation_cost_count"] == 3


async def test_proposals_are_counted_by_result(ask: Ask) -> None:
    flow = (await ask(FLOW))["createFlow"]["flow"]["id"]
    run = (await ask(RUN, flow=flow))["createFlowRun"]["flowRun"]["id"]
    kinds = ("RUNNING", "FAILED", "RUNNING", "COMPLETED", "COMPLETED")
    answers = [(await ask(PROPOSE, run=run, type=kind))["proposeState"]["status"].lower() for kind in kinds]
    await ask(PROPOSE, run=flow, type="RUNNING")

    told = await figures(ask.client)

    assert len(set(answers)) > 1
    assert {each: told[f"runstate_verdicts_total,{each}"] for each in answers} == Counter(answers)
    assert told["runstate_verdicts_total,problem"] == 1
    assert told["runstate_batches_total"] == told["runstate_batch_requests_count"] == 7
    assert told["runstate_database_statements_total"] > 5
    assert told["runstate_batcher_waiting"] == told["runstate_batcher_running_batches"] == 0


async def test_the_pools_and_the_age_of_the_feed_are_exported(client: httpx.AsyncClient, kind: str) -> None:
    told = await figures(client)

    pools = {"writer": 1, "reader": READERS} if kind == "sqlite" else {"all": 20}
    assert {name: told[f"runstate_pool_size,{name}"] for name in pools} == pools
    assert all(told[f"runstate_pool_used,{name}"] >= 0 for name in pools)
    assert 0 <= told["feed_age_seconds"] < 5


async def test_subscriptions_are_counted_while_they_last(outside: httpx.AsyncClient, socket: Socket) -> None:
    stream = await socket.subscribe("subscription { transitions { transitions { version } } }")
    await stream.next()
    ask = Ask(outside)
    flow = (await ask(FLOW))["createFlow"]["flow"]["id"]
    for _ in range(2):
        await ask(RUN, flow=flow)
        await stream.next()

    told = await figures(outside)

    assert told["ws_connections"] == told["subscriptions_active"] == 1
    assert told["subscription_events_total"] == 3
    # The first transition can come before the stream has joined the hub: it is read from the log then, and has no lag.
    assert told["subscription_lag_seconds_count"] in {1, 2}
    assert told["subscription_lag_seconds_sum"] < 30

    await stream.stop()
    query = await socket.subscribe("{ __typename }", "2")
    await query.next()
    told = await becoming(outside, lambda told: not told["subscriptions_active"])
    assert told["graphql_operations_total,ok,subscription"] == 1
    await socket.connection.close()
    await becoming(outside, lambda told: not told["ws_connections"])


async def test_services_export_the_time_of_their_last_round(url: str) -> None:
    app = build_app(Settings(database_url=url, services="late"))
    async with running(app), asking(app) as ask:
        told = await becoming(ask.client, lambda told: "runstate_service_rounds_total,ok,late" in told)

    assert told["runstate_service_last_round_timestamp_seconds,late"] > 1.7e9
    assert told["runstate_service_done_total,late"] == 0


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_the_size_of_a_pool_is_the_setting(url: str) -> None:
    app = build_app(Settings(database_url=url, services="off", database_connections=16))
    async with running(app), asking(app) as ask:
        assert (await figures(ask.client))["runstate_pool_size,all"] == 16


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_disconnected_slow_subscribers_are_counted(app: Starlette) -> None:
    metrics = Metrics()

    async def results() -> AsyncGenerator[ExecutionResult, None]:
        yield ExecutionResult({"transitions": None}, None)
        yield ExecutionResult(None, [GraphQLError("slow", extensions=extensions(SlowConsumer("here")))])

    context = Context(app.state.database, clock)
    context.kind = "subscription"
    asked = GraphQLRequest("subscription { transitions { cursor } }", None, None, None)
    async for _ in Observer(metrics).stream(results(), asked, context, {}):
        pass

    told = metrics.exposition()[0].decode()
    assert "slow_consumer_closed_total 1.0" in told
    assert 'graphql_operations_total{outcome="failed",type="subscription"} 1.0' in told
    assert "subscriptions_active 0.0" in told


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_metrics_can_be_turned_off(url: str) -> None:
    app = build_app(Settings(database_url=url, services="off", metrics=False))
    async with running(app), asking(app) as ask:
        assert (await ask.client.get("/metrics")).status_code == 404


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_metrics_need_a_key_with_the_scope_read_and_health_checks_need_none(url: str) -> None:
    database = Database(url)
    key = await Keys(database).make("prometheus", "read")
    await database.close()
    async with listening(url, authentication="keys") as server, asking_with(server, key) as ask:
        stranger = {"Authorization": ""}
        assert (await ask.client.get("/metrics")).status_code == 200
        assert (await ask.client.get("/metrics", headers=stranger)).status_code == 401
        for path in ("/healthz", "/readyz", "/health"):
            assert (await ask.client.get(path, headers=stranger)).status_code == 200


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_two_applications_in_a_process_count_separately(url: str, app: Starlette, ask: Ask) -> None:
    await ask("{ __typename }")
    other = build_app(Settings(database_url=url, services="off"))
    async with running(other), asking(other) as another:
        assert "graphql_operations_total,ok,query" not in await figures(another.client)


def test_every_metric_is_documented() -> None:
    page = PAGE.read_text()
    told = {family.name for family in Metrics().registry.collect()}
    own = {name for name in told if not name.startswith(("process_", "python_"))}

    assert [name for name in sorted(own) if f"`{name}" not in page] == []


async def test_figures_of_workers_are_kept_up_to_date_although_that_failed_once(app: Starlette, tmp_path: Path) -> None:
    state, looks = app.state, list[int]()
    meter = Meter(Metrics(tmp_path), clock)

    def look() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            raise LookupError

    with capture_logs() as logs:
        meter.start(state.database, state.feed.transitions, state.batcher)
        meter.look = look
        async with asyncio.timeout(30):
            while len(looks) < 2:  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0.05)
        await meter.stop()

    assert [each["task"] for each in logs if each.get("exc_info")] == ["metrics"]
