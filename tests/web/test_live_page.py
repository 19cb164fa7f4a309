"""The live page in Chromium: what it shows, that it stays up to date, and what can be done with it."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from signal import SIGKILL
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect

from tests.client import Ask
from tests.graphql.mutations import create, do, make_flow_run, make_task_run, propose
from tests.serving import Serve
from tests.subscribing import Listening
from tests.web.live import PHONE, LivePage, watching

pytestmark = pytest.mark.usefixtures("built")
ON_BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
BUDGET = 90_000
"""Compressed bytes of the first page."""
REQUESTS = 4
"""Requests for the first rows: the page, its code, the position in the log, and the view."""
FAILED = '{ flowRuns(first: 1, where: {stateType: {eq: FAILED}, flow: {name: {eq: "etl"}}}) { nodes { id } } }'
AUTOMATION = """mutation {
  createAutomation(input: {
    name: "failures"
    trigger: {event: {posture: REACTIVE, expect: ["runstate.flow-run.Failed"]}}
    actions: [{doNothing: true}]
  }) { ... on Problem { message } }
}"""
EMIT = """mutation {
  emitEvents(input: {events: [
    {name: "order.placed", resource: {resourceId: "order.17", name: "Order 17"}, payload: {note: "fragile"}}
    {name: "order.placed", resource: {resourceId: "order.18"}}
  ]}) { ... on Problem { message } }
}"""
CREATE_TASK_RUNS = """mutation($many: [CreateTaskRunInput!]!, $one: [CreateTaskRunInput!]!) {
  many: createTaskRuns(inputs: $many) { __typename }
  one: createTaskRuns(inputs: $one) { __typename }
}"""
TIME = "2026-01-01T00:00:00Z"
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
    "events": ("events?name=runstate.flow-run.*", "runstate.flow-run.Completed"),
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
OPENED = {
    "live": ("", ["l"], "Pause"),
    "search": ("", ["/"], "Go to Runs"),
    "keys": ("", ["?"], "these keys"),
    "event": ("events?name=runstate.flow-run.Failed", ["j", "Enter"], "runstate.state-type"),
    "compare": ("runs/{}", ["v"], "behind:"),
    "what-if": ("runs/{}", ["w"], "refuse_repeated_transition"),
    "retry": ("runs/{}", ["r"], "The run is scheduled again."),
    "many": ("runs?state=failed,crashed", ["R"], "will run again"),
}
"""View, keys, and a part of what they open."""


@pytest.mark.usefixtures("filled")
async def test_the_first_rows_need_few_and_small_requests(page: LivePage, browser: Browser, server: Listening) -> None:
    await page.sees("By flow")
    async with watching(browser, server.address, "runs") as runs:
        await runs.sees("health-check")

        assert len(runs.files) + len(runs.queries) <= REQUESTS
    # The overview reads its flows after the rest.
    assert len(page.files) + len(page.queries) <= REQUESTS + 1
    assert await page.size() <= BUDGET


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
    for name, (view, keys, text) in OPENED.items():
        await page.show(view.format(failed), "")
        await page.press(*keys)
        await page.sees(text)
        found += await page.judge(name)
        await page.press("Escape")
    assert not found, "\n".join(found)


@ON_BOTH
async def test_a_transition_is_shown_and_said(page: LivePage, live: Ask) -> None:
    await page.show("runs", "No run matches")
    run = await make_flow_run(live)
    await page.sees("Pending")
    await propose(live, run, "RUNNING")
    await page.sees("Running")
    await propose(live, run, "FAILED")
    await page.sees("Failed")
    # Failures are said together, other transitions not at all.
    said = page.page.locator("[role=status], [aria-live], output")
    assert await said.all_inner_texts() == [""]
    await page.page.clock.run_for(5_000)
    await expect(said).to_have_text("1 run failed")


@ON_BOTH
@pytest.mark.usefixtures("filled")
async def test_nothing_is_asked_while_nothing_happens(page: LivePage, live: Ask) -> None:
    run = (await live(FAILED))["flowRuns"]["nodes"][0]["id"]
    for view, text in [*VIEWS.values(), *((f"runs/{run}?tab={side}", text) for side, text in SIDES.items())]:
        await page.show(view, text)
        await page.rest()
        before = await page.asked()
        await page.page.clock.run_for(60_000)

        assert await page.asked() == before, view
    assert "away" not in await page.page.locator(".dot").inner_text()


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
            await page.press("j", "x")
            await page.sees("1 run selected")
            await expect(page.page.get_by_role("button", name="Cancel …")).to_be_visible()
            await first.stop(SIGKILL)
            await page.sees("Not connected since")
            await expect(page.page.get_by_role("button", name="Cancel …")).to_be_hidden()
            await page.press("Escape")
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


@ON_BOTH
async def test_a_timeline_shows_each_attempt(page: LivePage, live: Ask) -> None:
    run = await make_flow_run(live)
    await propose(live, run, "RUNNING")
    policy = {"retries": 2, "retryDelaysSeconds": [0]}
    task = await make_task_run(live, flowRunId=run, policy=policy)
    for state in ("RUNNING", "FAILED", "RUNNING", "FAILED", "RUNNING", "FAILED"):
        await propose(live, task, state, task=True)
    await page.show(f"runs/{run}?task={task}", "Retrying")
    lane = page.page.locator(".lane:not(.is-whole):not(.axis)")
    await expect(lane.locator(".mark.is-failed")).to_have_count(3)
    await expect(lane.locator(".segment.is-retry-wait")).to_have_count(2)
    await expect(lane.get_by_role("button")).to_have_attribute("aria-label", re.compile("3 attempts, failed 3 times"))
    await page.sees("retry_failed_task_run")
    before = await page.page.locator(".chosen").inner_text()
    # The address says it all.
    await page.page.reload()
    await page.sees("retry_failed_task_run")

    assert await page.page.locator(".chosen").inner_text() == before


async def test_many_runs_and_many_task_runs_are_drawn_only_where_they_are_seen(page: LivePage, live: Ask) -> None:
    runs = [await make_flow_run(live, name=f"run {number:03}") for number in range(150)]
    inputs = [{"flowRunId": runs[0], "taskKey": "t", "dynamicKey": str(number)} for number in range(201)]
    await live(CREATE_TASK_RUNS, many=inputs[:200], one=inputs[200:])
    await page.show("runs?sort=name", "run 000")

    drawn = page.page.locator(".window tbody tr:not(.space)")
    assert await drawn.count() < 70
    await expect(page.page.locator(".window table")).to_have_attribute("aria-rowcount", "-1")
    await page.page.locator(".window").evaluate("box => { box.scrollTop = box.scrollHeight; }")
    await expect(page.page.locator(".window table")).to_have_attribute("aria-rowcount", "151")
    await page.page.locator(".window").evaluate("box => { box.scrollTop = box.scrollHeight; }")
    await page.sees("run 149")
    assert await drawn.count() < 70

    await page.show(f"runs/{runs[0]}", "201 runs")
    await page.page.locator(".groups summary").click()
    await expect(page.page.locator(".groups tbody tr")).to_have_count(100)
    await page.page.get_by_role("button", name="100 more").click()
    await expect(page.page.locator(".groups tbody tr")).to_have_count(200)


@ON_BOTH
async def test_events_are_followed_and_lead_to_what_they_set_off(page: LivePage, live: Ask) -> None:
    await live(AUTOMATION)
    run = await make_flow_run(live)
    await page.show("events?name=runstate.flow-run.*", "runstate.flow-run.Pending")
    await propose(live, run, "FAILED")
    await page.sees("runstate.flow-run.Failed")
    await page.press("j", "Enter")
    await page.sees("fired failures")
    await page.page.get_by_role("link", name="failures").click()
    await page.sees("do nothing executed")
    await page.page.get_by_role("link", name="runstate.flow-run.Failed").click()
    await page.sees("fired failures")
    await expect(page.page).to_have_url(re.compile(r"#/events\?event="))
    await live(EMIT)
    await page.show("events?text=fragile", "Order 17")

    assert await page.page.locator(".events tbody tr").count() == 1


@ON_BOTH
async def test_progress_and_lines_of_a_run_are_followed(page: LivePage, live: Ask) -> None:
    run = await make_flow_run(live)
    await propose(live, run, "RUNNING")
    made = await create(live, "artifact", flowRunId=run, type="progress", data=10)
    await page.show(f"runs/{run}?tab=artifacts", "10 %")
    await do(live, "updateArtifact", "UpdateArtifactInput", "__typename", id=made["artifact"]["id"], data=60)
    await page.sees("60 %")
    await page.show(f"runs/{run}?tab=logs", "No lines.")
    await write(live, run, (20, "begun"), (40, "broken"))
    await page.sees("begun")
    await page.page.get_by_label("level").select_option("error")
    await expect(page.page.locator(".log")).to_have_count(1)
    await write(live, run, (20, "more"), (50, "lost"))
    await page.sees("lost")
    await page.page.get_by_label("level").select_option("all")
    await page.page.get_by_label("Search in the lines").fill("more")
    await page.press("Enter")
    await expect(page.page.locator(".log")).to_have_count(1)


async def write(ask: Ask, run: str, *lines: tuple[int, str]) -> None:
    """Write lines of a run."""
    logs = [
        {"flowRunId": run, "level": level, "message": text, "logger": "l", "timestamp": TIME} for level, text in lines
    ]
    await do(ask, "writeLogs", "WriteLogsInput", "__typename", logs=logs)


@pytest.mark.usefixtures("filled")
async def test_times_and_themes_are_switched_and_kept(page: LivePage) -> None:
    await page.show("events", "runstate.flow-run.Completed")
    times = page.page.locator(".events time")
    dark = "getComputedStyle(document.body).backgroundColor === 'rgb(17, 20, 23)'"

    assert not await page.page.evaluate(dark)
    await page.press("t", "T")
    await expect(times.first).to_contain_text("Z")
    await expect(times.first).to_have_attribute("title", re.compile(r"Z\)$"))
    await page.page.reload()
    await expect(times.first).to_contain_text("Z")
    assert await page.page.evaluate(dark)


@pytest.mark.usefixtures("filled")
async def test_on_a_phone_a_list_leads_to_a_run_and_to_its_task(page: LivePage, live: Ask) -> None:
    await page.page.set_viewport_size(PHONE)
    await page.show("runs?state=failed&flow=etl", "Failed")
    await page.page.locator(".window tbody a").first.click()
    await page.page.get_by_role("button", name=re.compile("^load: ")).click()
    await page.sees("retry_failed_task_run")

    assert "task=" in page.page.url


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
