"""GraphiQL in Chromium: no warnings, no errors, and no requests to other hosts."""

from typing import Any

import orjson
import pytest
from playwright.async_api import Browser, Response

from runstate.cli.demo import demo
from runstate.cli.watch import socket_address
from runstate.database import Database
from tests.client import Ask
from tests.credentials import Keys, asking_with, bearing
from tests.graphql.mutations import make_flow_run, propose
from tests.subscribing import Listening, listening
from tests.web.conftest import GraphiQL, looking_at

QUERIES = ("Propose", "RecentRuns", "OneRun", "FailedRuns", "RetriedTasks", "Counts", "History")
SUBSCRIPTIONS = ("LiveTransitions", "LiveCounts")


@pytest.fixture
async def filled(server: Listening) -> None:
    """Run a demo of twelve runs."""
    await demo(socket_address(server.address), None, 12, 0, lambda *_: None)


async def test_a_query_is_typed_completed_and_executed(graphiql: GraphiQL, live: Ask) -> None:
    await make_flow_run(live)
    await graphiql.type("{ flowRunCountsB")
    await graphiql.page.wait_for_selector(".suggest-widget.visible .focused >> text=flowRunCountsByState")
    await graphiql.page.keyboard.press("Enter")
    await graphiql.reads("{ flowRunCountsByState}")
    await graphiql.page.keyboard.type(" { count } }")
    await graphiql.reads("{ flowRunCountsByState { count } }")
    await graphiql.page.keyboard.press("Control+Enter")

    await graphiql.sees('"count": 1')


async def test_an_invalid_field_is_underlined(graphiql: GraphiQL) -> None:
    await graphiql.type("{ nothingLikeThis }")

    await graphiql.page.wait_for_selector(".graphiql-query-editor .squiggly-error")


async def test_a_subscription_shows_events_immediately(graphiql: GraphiQL, live: Ask) -> None:
    await graphiql.show("LiveTransitions")
    await graphiql.run()
    await graphiql.sees('"transitions": []')
    run = await make_flow_run(live)
    await graphiql.sees('"stateName": "Pending"')
    await propose(live, run, "RUNNING")
    await graphiql.sees('"stateName": "Running"')
    await graphiql.stop()


async def answer(graphiql: GraphiQL, tab: str, operation: str = "") -> Any:
    """Execute the query in a tab; return the answer."""
    async with graphiql.page.expect_response(lambda response: response.url.endswith("/graphql")) as answered:
        await graphiql.run(operation)
    response: Response = await answered.value
    said = await response.json()
    assert "errors" not in said, (tab, said)
    await graphiql.sees('"data": {')
    return said["data"]


@pytest.mark.usefixtures("filled")
async def test_every_tab_is_executed_unchanged(graphiql: GraphiQL) -> None:
    await graphiql.show("FirstFlow")
    assert (await answer(graphiql, "FirstFlow", "FirstFlow"))["createFlow"]["flow"]["name"] == "hello"
    assert (await answer(graphiql, "FirstFlow", "FirstRun"))["createFlowRun"]["created"]
    for tab in QUERIES:
        await graphiql.show(tab)
        await answer(graphiql, tab)
    for tab in SUBSCRIPTIONS:
        await graphiql.show(tab)
        await graphiql.run()
        await graphiql.sees('"data": {')
        await graphiql.stop()
    await graphiql.show("OneRun")
    assert (await answer(graphiql, "OneRun"))["flowRuns"]["nodes"][0]["taskRuns"]["nodes"]
    await graphiql.picture("graphiql")


async def test_a_key_in_the_headers_authenticates_queries_and_subscriptions(
    built: None, browser: Browser, database: Database, url: str
) -> None:
    key = await Keys(database).make("ada")
    async with (
        listening(url, authentication="keys") as server,
        asking_with(server, key) as ask,
        looking_at(browser, server.address.replace("/graphql", "/graphiql")) as graphiql,
    ):
        await graphiql.show("Counts")
        await graphiql.run()
        await graphiql.sees("Authentication is required")
        await graphiql.headers(orjson.dumps(bearing(key)).decode())
        await graphiql.run()
        await graphiql.sees('"flowRunCount": 0')
        await graphiql.show("LiveCounts")
        await graphiql.headers(orjson.dumps(bearing(key)).decode())
        await graphiql.run()
        await graphiql.sees('"runCounts": []')
        await make_flow_run(ask)
        await graphiql.sees('"stateName": "Pending"')
        await graphiql.picture("key")
    assert graphiql.strayed == []
