"""The live page in Chromium: keys, actions, and what a key of the API allows."""

import asyncio
import json
import re

import pytest
from playwright.async_api import Browser, Route, expect
from playwright.async_api import TimeoutError as LateError

from runstate.database import Database
from tests.client import Ask
from tests.credentials import Keys
from tests.graphql.mutations import create, do, flow_run, make_flow_run, make_task_run, propose
from tests.subscribing import asking, listening
from tests.web.live import GO, LivePage

pytestmark = pytest.mark.usefixtures("built")
ON_BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
FAILED = '{ flowRuns(first: 1, where: {stateType: {eq: FAILED}, flow: {name: {eq: "etl"}}}) { nodes { id } } }'
STATE = "query($id: ID!) { flowRun(id: $id) { stateType stateName } }"
SCHEMA = {"type": "object", "properties": {"approved": {"type": "boolean"}, "by": {"type": "string"}}}
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
    "Cancel everything of a flow": ("gfC", "will be cancelled"),
}
"""Keys that lead to the answer of each question of an operator, and a part of the answer."""


@ON_BOTH
@pytest.mark.usefixtures("filled")
async def test_the_questions_of_an_operator_are_answered_by_three_keys(page: LivePage) -> None:
    for keys, text in ANSWERS.values():
        assert len(keys) <= 3
        await page.show("pools", "Work pools")
        await page.press(*("Enter" if key == "⏎" else key for key in keys))
        await page.sees(text)
        await page.press("Escape")


async def test_keys_that_come_before_the_data_wait_for_it(page: LivePage, live: Ask) -> None:
    runs = [await make_flow_run(live) for _ in range(2)]
    arrives = asyncio.Event()

    async def hold(route: Route) -> None:
        await arrives.wait()
        await route.fallback()

    await page.show("pools", "No work pools")
    await page.page.route("**/graphql", hold)
    await page.page.evaluate(GO, f"runs?where={json.dumps({'id': {'eq': runs[0]}})}")
    await page.press("j", "Enter")
    arrives.set()
    await expect(page.page).to_have_url(re.compile(f"#/runs/{runs[0]}$"))
    await page.sees("Timeline")
    arrives.clear()
    await page.page.evaluate(GO, f"runs/{runs[1]}")
    await page.sees("Loading")
    await page.press("w")
    arrives.set()
    await page.sees("if this state were proposed")


@ON_BOTH
async def test_a_run_is_paused_resumed_with_an_answer_and_cancelled(page: LivePage, live: Ask) -> None:
    run = await make_flow_run(live)
    await propose(live, run, "RUNNING")
    await page.show(f"runs/{run}", "Running")
    state = page.page.locator(".run-head .state")
    for key, name in (("p", "Paused"), ("u", "Running")):
        await page.press(key)
        await page.page.wait_for_selector("dialog .primary:focus")
        await page.press("Enter")
        await expect(state).to_contain_text(name)

    for given in ({"key": "schema", "value": SCHEMA}, {"key": "question", "value": "Is it to be paid?"}):
        await do(live, "createFlowRunInput", "CreateFlowRunInputInput", "__typename", flowRunId=run, **given)
    keyset = {"schema": "schema", "description": "question", "response": "answer"}
    await do(live, "pauseFlowRun", "PauseFlowRunInput", "__typename", id=run, timeoutSeconds=60, runInputKeyset=keyset)
    await expect(state).to_contain_text("Paused")
    await page.press("u")
    await page.sees("Is it to be paid?")
    await page.page.get_by_label("approved").check()
    await page.page.get_by_label("by").fill("Ada")
    await page.press("Enter")
    await expect(state).to_contain_text("Running")
    inputs = (await flow_run(live, run, "inputs { nodes { key value } }"))["inputs"]["nodes"]
    assert {"key": "answer", "value": {"approved": True, "by": "Ada"}} in inputs

    await page.press("c")
    await page.page.wait_for_selector("dialog .primary:focus")
    await page.press("Enter")
    await expect(state).to_contain_text("Cancelling")


@ON_BOTH
async def test_slots_are_given_back_and_waiting_runs_are_explained(page: LivePage, live: Ask) -> None:
    await create(live, "concurrencyLimit", name="tag:database", limit=1)
    run = await make_flow_run(live)
    await propose(live, run, "RUNNING")
    tasks = [await make_task_run(live, key, flowRunId=run, tags=["database"]) for key in ("a", "b")]
    for task in tasks:
        await propose(live, task, "RUNNING", task=True)
    await page.show(f"runs/{run}", "The limit")
    await page.page.get_by_label("What is waited for").get_by_role("link", name="tag:database").click()
    await page.sees("1 run waits")
    # The slot belongs to the state of its run, so the run has to leave that state.
    await page.page.get_by_role("button", name="End the run …").click()
    await page.sees("It would be accepted")
    await page.page.get_by_role("button", name="Propose it").click()
    await page.sees("0 of 1")
    await page.press("Escape")
    slots = {"names": ["tag:database"], "slots": 1}
    await do(live, "acquireConcurrencySlots", "AcquireConcurrencySlotsInput", "__typename", **slots)
    await page.page.reload()
    await page.page.get_by_role("button", name="Release …").click()
    await page.page.wait_for_selector("dialog .primary:focus")
    await page.press("Enter")
    await page.sees("0 of 1")


async def choose_completed(page: LivePage) -> None:
    """Open the rules that apply, and choose COMPLETED. A view that is read again can close the dialog: try again."""
    for patience in (4_000, 4_000, 4_000, 30_000):
        await page.press("w")
        try:
            await page.page.get_by_label("completed").check(timeout=patience)
        except LateError:
            continue
        return


@ON_BOTH
async def test_a_state_is_proposed_unless_the_run_has_moved_on(page: LivePage, live: Ask) -> None:
    run = await make_flow_run(live)
    await page.show(f"runs/{run}", "Pending")
    await choose_completed(page)
    await page.sees("It would be accepted")
    assert (await live(STATE, id=run))["flowRun"]["stateType"] == "PENDING"
    await propose(live, run, "RUNNING")
    await page.page.get_by_role("button", name="Propose it").click()
    await page.sees("version")
    assert (await live(STATE, id=run))["flowRun"]["stateType"] == "RUNNING"
    await page.press("Escape")
    await expect(page.page.locator("dialog[open]")).to_have_count(0)
    await choose_completed(page)
    await page.sees("It would be accepted")
    await page.page.get_by_role("button", name="Propose it").click()
    await expect(page.page.locator(".run-head .state")).to_contain_text("Completed")


@pytest.mark.usefixtures("filled")
async def test_a_run_is_retried_after_the_rules_were_asked(page: LivePage, live: Ask) -> None:
    failed = (await live(FAILED))["flowRuns"]["nodes"][0]["id"]
    await page.show(f"runs/{failed}", "What if")
    await page.press("w")
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
        await page.press("w", "c")
        assert await page.page.locator("dialog").count() == 0
        stored = await page.page.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage)]")
        assert [reader in each for each in stored] == [False, True]
        await page.page.evaluate("key => sessionStorage.setItem('runstate.key', key)", writer)
        await page.page.reload()
        await page.sees("What if")
        await context.close()
