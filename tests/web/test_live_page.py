"""The live page in Chromium: what it shows, that it stays up to date, and what can be done with it."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from signal import SIGKILL
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect

from runstate.cli.demo import demo
from runstate.client.sockets import socket_address
from runstate.database import Database
from tests.client import Ask
from tests.credentials import Keys
from tests.graphql.mutations import make_flow_run, propose
from tests.serving import Serve
from tests.subscribing import Listening, asking, listening
from tests.web.live import LivePage, watching

pytestmark = pytest.mark.usefixtures("built")
ON_BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
BUDGET = 90_000
"""Compressed bytes of the first page."""
FAILED = '{ flowRuns(first: 1, where: {stateType: {eq: FAILED}, flow: {name: {eq: "etl"}}}) { nodes { id } } }'
STATE = "query($id: ID!) { flowRun(id: $id) { stateType stateName } }"
AUTOMATION = """mutation {
  createAutomation(input: {
    name: "failures"
    trigger: {event: {posture: REACTIVE, expect: ["runstate.flow-run.Failed"]}}
    actions: [{doNothing: true}]
  }) { ... on Problem { message } }
}"""
VIEWS = {
    "overview": ("", "By flow"),
    "runs": ("runs", "health-check"),
    "failures": ("runs?state=failed,crashed", "Connection reset by peer"),
    "flows": ("flows", "train-model"),
    "flow": ("flows/etl", "By day"),
    "limits": ("limits", "tag:database"),
    "deployments": ("deployments", "nightly"),
    "pools": ("pools", "Work pools"),
    "automations": ("automations", "do nothing executed"),
}
SIDES = {
    "timeline": "load",
    "graph": "join",
    "states": "Failed",
    "tasks": "attempts",
    "inputs": "region",
    "artifacts": "Dashboard",
    "logs": "Task load was started",
}
ANSWERS = {
    "What failed in the last hour, and why?": ("ge", "load: DemoError: Connection reset by peer"),
    "What is running, and how far is it?": ("go", "Running now"),
    "What is late?": ("go", "Needs a look"),
    "How long does each flow take?": ("go", "p95"),
    "What is the success rate of each flow, day by day?": ("gf⏎", "By day"),
    "Which runs wait for which limit?": ("gl", "held on average"),
    "Retry everything that failed last night": ("geR", "will run again"),
    "How did one task do across runs?": ("gf⏎", "attempts. Newest run"),
    "What changed since I last looked?": ("l", "since you last looked"),
}
"""Keys that lead to the answer of each question of an operator, and a part of the answer."""


@pytest.fixture
async def filled(server: Listening) -> None:
    """Run a demo of twelve runs."""
    await demo(socket_address(server.address), None, 12, inf, lambda *_: None)


@pytest.fixture
async def page(server: Listening, browser: Browser) -> AsyncIterator[LivePage]:
    """Yield the open page; check afterwards that there were no complaints and no requests to other hosts."""
    async with watching(browser, server.address) as page:
        yield page
    assert (page.complaints, page.strayed) == ([], [])


@pytest.mark.usefixtures("filled")
async def test_the_first_page_is_small(page: LivePage) -> None:
    await page.sees("By flow")

    assert len(page.files) <= 4
    assert await page.size() <= BUDGET
    assert len(page.queries) <= 3


@pytest.mark.usefixtures("filled")
async def test_every_view_is_accessible_and_fits(page: LivePage, live: Ask) -> None:
    failed = (await live(FAILED))["flowRuns"]["nodes"][0]["id"]
    found = []
    for name, (view, text) in VIEWS.items():
        await page.show(view, text)
        found += await page.judge(name)
    for side, text in SIDES.items():
        await page.show(f"runs/{failed}?tab={side}", text)
        found += await page.judge(f"run-{side}")
    for name, key, text in (("live", "l", "Live"), ("search", "/", "Go to Runs"), ("keys", "?", "these keys")):
        await page.press(key)
        await page.sees(text)
        found += await page.judge(name)
        await page.press("Escape")
    assert not found, "\n".join(found)


@ON_BOTH
@pytest.mark.usefixtures("filled")
async def test_the_questions_of_an_operator_are_answered_by_three_keys(page: LivePage) -> None:
    for keys, text in ANSWERS.values():
        await page.show("pools", "Work pools")
        for key in keys:
            await page.press_when_ready(key)
        await page.sees(text)
        await page.press("Escape")


@ON_BOTH
async def test_a_transition_is_shown_and_nothing_is_asked_while_nothing_happens(page: LivePage, live: Ask) -> None:
    await page.show("runs", "No run matches")
    run = await make_flow_run(live)
    await page.sees("Pending")
    await propose(live, run, "RUNNING")
    await page.sees("Running")
    # A view reads again after a change, with a pause.
    await page.page.clock.run_for(5_000)
    await page.page.wait_for_load_state("networkidle")
    before = len(page.queries)
    await page.page.clock.run_for(60_000)

    assert page.queries[before:] == []
    assert await page.page.locator(".dot").inner_text() != "away"


@ON_BOTH
async def test_a_firing_is_shown_with_its_actions(page: LivePage, live: Ask) -> None:
    await live(AUTOMATION)
    await page.show("automations", "has not fired")
    await propose(live, await make_flow_run(live), "FAILED")

    await page.sees("do nothing executed")


async def test_a_view_is_a_link(page: LivePage, browser: Browser, server: Listening, live: Ask) -> None:
    await make_flow_run(live)
    await page.show("runs", "Pending")
    await page.page.locator("#filter").fill("pending")
    await page.press("Enter")
    await page.sees("state: pending")
    address = page.page.url.partition("#/")[2]
    assert address == "runs?state=pending"
    async with watching(browser, server.address, address) as other:
        await other.sees("state: pending")
        await other.page.locator(".menu summary").click()
        await other.page.get_by_text("Open in GraphiQL").click()
        await expect(other.page).to_have_url(re.compile(r"/graphiql/#query=.*Runs"))


@ON_BOTH
async def test_after_a_break_the_page_equals_a_fresh_one(browser: Browser, url: str, unused_tcp_port: int) -> None:
    environment = {"RUNSTATE_DATABASE_URL": url, "RUNSTATE_SERVICES": "off", "RUNSTATE_LOG_LEVEL": "error"}
    port, address = {"RUNSTATE_PORT": str(unused_tcp_port)}, f"127.0.0.1:{unused_tcp_port}/graphql"
    async with AsyncExitStack() as servers:
        serve = Serve(servers, environment)
        first = await serve(**port)
        async with asking_at(first.url) as ask:
            runs = [await make_flow_run(ask) for _ in range(5)]
        async with watching(browser, address, "runs") as page:
            await page.sees("5 runs")
            await first.stop(SIGKILL)
            await page.sees("away")
            second = await serve()
            async with asking_at(second.url) as ask:
                await turn(ask, runs, times=100)
                await make_flow_run(ask)
            await second.stop()
            await serve(**port)
            await page.page.clock.run_for(10_000)
            await page.sees("6 runs")
            async with watching(browser, address, "runs") as fresh:
                await fresh.sees("6 runs")
                assert await page.rows(6) == await fresh.rows(6)


@asynccontextmanager
async def asking_at(url: str) -> AsyncIterator[Ask]:
    """Yield a client of a server in a process of its own."""
    async with httpx.AsyncClient(base_url=url.removesuffix("/graphql"), timeout=60) as client:
        yield Ask(client)


async def turn(ask: Ask, runs: list[str], times: int) -> None:
    """Move each run to and fro."""
    propose_states = "mutation($inputs: [ProposeStateInput!]!) { proposeStates(inputs: $inputs) { __typename } }"
    for number in range(times):
        state = {"type": ("RUNNING", "PENDING")[number % 2]}
        inputs: list[Any] = [{"run": {"flowRunId": run}, "state": state, "force": True} for run in runs]
        await ask(propose_states, inputs=inputs)


@pytest.mark.usefixtures("filled")
async def test_a_run_is_retried_after_the_rules_were_asked(page: LivePage, live: Ask) -> None:
    failed = (await live(FAILED))["flowRuns"]["nodes"][0]["id"]
    await page.show(f"runs/{failed}", "What if")
    # Keys of a view are registered after its first picture, so a key that comes at once can be lost.
    await page.page.get_by_role("button", name="What if").click()
    await page.sees("reset_flow_run")
    await page.press("Escape", "r")
    await page.sees("The run is scheduled again.")
    await page.press("Enter")
    await page.sees("AwaitingRetry")

    assert (await live(STATE, id=failed))["flowRun"]["stateType"] == "SCHEDULED"


@ON_BOTH
async def test_many_runs_are_cancelled_after_a_dry_run(page: LivePage, live: Ask) -> None:
    runs = [await make_flow_run(live, name=f"cancelled {number}") for number in range(3)]
    await page.show("runs?q=cancelled", "3 runs")
    await page.rows(3)
    await page.press("j", "x", "j", "x")
    await page.sees("2 runs selected")
    await page.press("c")
    await page.sees("2 will be cancelled")
    states = [(await live(STATE, id=run))["flowRun"]["stateType"] for run in runs]
    assert states == ["PENDING"] * 3
    await page.page.get_by_role("button", name="Cancel 2 runs").click()
    await page.sees("2 were cancelled")

    states = [(await live(STATE, id=run))["flowRun"]["stateType"] for run in runs]
    assert sorted(states) == ["CANCELLING", "CANCELLING", "PENDING"]


async def test_a_key_is_asked_for_and_shows_no_actions_that_it_does_not_allow(
    browser: Browser, database: Database, url: str
) -> None:
    keys = Keys(database)
    reader, writer = await keys.make("reader", "read"), await keys.make("writer", "propose")
    async with listening(url, authentication="keys") as server:
        async with asking(server) as live:
            live.client.headers["Authorization"] = f"Bearer {writer}"
            run = await make_flow_run(live)
        context = await browser.new_context()
        page = LivePage(await context.new_page(), server.address)
        await page.page.goto(f"{page.root}#/runs/{run}")
        await page.sees("This server needs a key.")
        await page.page.get_by_label("API key").fill(reader)
        await page.press("Enter")
        await page.sees("Pending")
        assert await page.page.get_by_text("What if").count() == 0
        stored = await page.page.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage)]")
        assert [reader in each for each in stored] == [False, True]
        await page.page.evaluate("key => sessionStorage.setItem('runstate.key', key)", writer)
        await page.page.reload()
        await page.sees("What if")
        await context.close()
