"""GraphiQL in Chromium: no warnings, no errors, and no requests to other hosts."""

from math import inf
from typing import Any

import orjson
import pytest
from playwright.async_api import Browser, Response

from runstate.cli.demo import demo
from runstate.client.sockets import socket_address
from runstate.database import Database
from tests.client import Ask
from tests.credentials import Keys, asking_with, bearing
from tests.graphql.mutations import make_flow, make_flow_run, propose
from tests.subscribing import Listening, listening
from tests.web.conftest import GraphiQL, looking_at

QUERIES = ("RecentRuns", "OneRun", "FailedRuns", "RetriedTasks", "Counts")
SUBSCRIPTIONS = ("LiveTransitions", "LiveCounts")


@pytest.fixture
async def filled(server: Listening) -> None:
    """Run a demo of twelve runs."""
    await demo(socket_address(server.address), None, 12, inf, lambda *_: None)


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


async def answer(graphiql: GraphiQL, tab: str, *variables: str) -> Any:
    """Show a tab, wait until its variables contain these texts, execute its query; return the answer."""
    await graphiql.show(tab)
    for text in variables:
        await graphiql.has_variables(text)

    def is_of_tab(response: Response) -> bool:
        asked: Any = response.request.post_data_json
        return response.url.endswith("/graphql") and bool(asked["operationName"] == tab)

    async with graphiql.page.expect_response(is_of_tab) as answered:
        await graphiql.run()
    response: Response = await answered.value
    said = await response.json()
    assert "errors" not in said, (tab, said)
    await graphiql.sees('"data": {')
    return said["data"]


async def test_it_greets_with_recent_runs(server: Listening, live: Ask, browser: Browser) -> None:
    run = (await live("query($id: ID!) { flowRun(id: $id) { name } }", id=await make_flow_run(live)))["flowRun"]
    async with looking_at(browser, server.address) as graphiql:
        await graphiql.sees(f'"name": "{run["name"]}"')


async def test_an_example_goes_on_with_what_another_created(graphiql: GraphiQL, live: Ask) -> None:
    await graphiql.show("FirstRun")
    await graphiql.has_variables("Run FirstFlow first.")
    flow = (await answer(graphiql, "FirstFlow"))["createFlow"]["flow"]["id"]
    newer = await make_flow_run(live)
    run = (await answer(graphiql, "FirstRun", flow))["createFlowRun"]["flowRun"]["id"]
    await make_flow_run(live, flowId=flow)

    assert (await answer(graphiql, "Propose", run))["proposeState"]["status"] == "ACCEPT"
    assert run != newer
    data = await live("query($id: ID!) { flowRun(id: $id) { flow { id } } }", id=run)
    assert data == {"flowRun": {"flow": {"id": flow}}}


async def test_variables_that_were_changed_stay(graphiql: GraphiQL) -> None:
    await graphiql.show("Propose")
    await graphiql.has_variables("Run FirstRun first.")
    await graphiql.variables('{"run": "mine"}')
    await graphiql.link("mine")
    await graphiql.show("FirstRun")
    await graphiql.has_variables("Run FirstFlow first.")
    await graphiql.show("Propose")

    await graphiql.has_variables("mine")


async def test_the_address_is_a_link_to_query_and_variables(graphiql: GraphiQL, browser: Browser, live: Ask) -> None:
    flow = await make_flow(live, name="etl")
    await graphiql.type("query Flow($id: ID!) { flow(by: { id: $id }) { name } }")
    await graphiql.variables(f'{{"id": "{flow}"}}')
    address = await graphiql.link(flow)

    async with looking_at(browser, address.removeprefix("http://")) as other:
        await other.reads("query Flow($id: ID!) { flow(by: { id: $id }) { name } }")
        await other.has_variables(flow)
        assert await other.page.locator(".graphiql-response").inner_text() == ""
        await other.run()
        await other.sees('"name": "etl"')
        assert (other.complaints, other.strayed) == ([], [])


@pytest.mark.usefixtures("filled")
async def test_the_history_begins_with_runs_at_a_full_minute(graphiql: GraphiQL) -> None:
    first, *_ = (await answer(graphiql, "History", '"seconds": 60'))["flowRunHistory"]

    assert first["states"]
    assert first["start"].endswith(":00.000000Z")


@pytest.mark.usefixtures("filled")
async def test_every_tab_is_executed_unchanged(graphiql: GraphiQL) -> None:
    for tab in QUERIES:
        await answer(graphiql, tab)
    for tab in SUBSCRIPTIONS:
        await graphiql.show(tab)
        await graphiql.run()
        await graphiql.sees('"data": {')
        await graphiql.stop()
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
