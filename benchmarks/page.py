"""The live page in Chromium: requests, size, first rows, transitions, scrolling, a large run, quiet, CPU and heap.

    python -m benchmarks.page --seconds 20 --database-kind postgresql

Each line has its goal; ✗ marks a goal that was missed.

A server on a new database, its clients and the browser share the machine. The delay is measured from `occurred`,
before the commit, to the frame in which the drawer Live shows the transition.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from playwright.async_api import Browser, Page, async_playwright

from benchmarks.databases import database
from runstate.web.build import build

PORT = 4323
ROOT = f"http://127.0.0.1:{PORT}/"
ROWS = TASKS = 10_000
Kind = Annotated[str, typer.Option(help="`sqlite` or `postgresql`.")]
AT_ONCE = 20  # mutations in a request
TASKS_AT_ONCE = 200  # task runs in a mutation
REST_MS = 10_000  # longer than any pause between two requests of a view
CREATE_TASKS = "mutation($inputs: [CreateTaskRunInput!]!) { createTaskRuns(inputs: $inputs) { __typename } }"
PROPOSE = "mutation($inputs: [ProposeStateInput!]!) { proposeStates(inputs: $inputs) { __typename } }"
DELAYS = """() => {
  window.delays = [];
  const seen = new WeakSet();
  new MutationObserver(() => requestAnimationFrame(() => {
    for (const time of document.querySelectorAll(".ticker time")) {
      if (seen.has(time)) continue;
      seen.add(time);
      window.delays.push(Date.now() - Date.parse(time.dateTime));
    }
  })).observe(document.querySelector(".ticker"), { childList: true, subtree: true });
}"""
SCROLL = """async rows => {
  const box = document.querySelector(".window");
  const frames = [];
  let before = performance.now();
  for (let top = 0; top < rows * 32; top += 1000) {
    box.scrollTop = top;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - before);
    before = now;
  }
  return frames;
}"""

Ask = Callable[..., Any]


@asynccontextmanager
async def served(url: str) -> AsyncIterator[Ask]:
    """Yield a client of a new server on a database."""
    settings = {"PORT": str(PORT), "DATABASE_URL": url, "LOG_LEVEL": "error"}
    environment = {**os.environ, **{f"RUNSTATE_{name}": value for name, value in settings.items()}}
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", "runstate", "serve", env=environment)
    async with httpx.AsyncClient(base_url=ROOT, timeout=60) as client:
        for _ in range(300):
            if await is_ready(client):
                break
            await asyncio.sleep(0.1)

        async def ask(query: str, **variables: Any) -> Any:
            answer = await client.post("graphql", json={"query": query, "variables": variables})
            body = answer.json()
            if "errors" in body:
                raise RuntimeError(body["errors"])
            return body["data"]

        try:
            yield ask
        finally:
            server.terminate()
            await server.wait()


async def is_ready(client: httpx.AsyncClient) -> bool:
    """Return whether the server answers."""
    try:
        return (await client.get("readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def create(ask: Ask, what: str, inputs: list[dict[str, Any]]) -> list[str]:
    """Create objects; return their ids."""
    kind = f"{what[0].upper()}{what[1:]}"
    ids: list[str] = []
    for start in range(0, len(inputs), AT_ONCE):
        part = inputs[start : start + AT_ONCE]
        given = ", ".join(f"$i{number}: Create{kind}Input!" for number in range(len(part)))
        made = f"... on Create{kind}Payload {{ {what} {{ id }} }}"
        calls = " ".join(f"m{number}: create{kind}(input: $i{number}) {{ {made} }}" for number in range(len(part)))
        variables = {f"i{number}": each for number, each in enumerate(part)}
        data = await ask(f"mutation({given}) {{ {calls} }}", **variables)
        ids += [each[what]["id"] for each in data.values()]
    return ids


async def turn(ask: Ask, runs: list[str], rate: int, seconds: float) -> None:
    """Move runs to and fro, `rate` transitions a second."""
    ends, number, step = time.monotonic() + seconds, 0, 0.05
    while time.monotonic() < ends:
        began = time.monotonic()
        state = {"type": ("RUNNING", "PENDING")[number % 2]}
        chosen = runs[: max(1, int(rate * step))]
        await ask(PROPOSE, inputs=[{"run": {"flowRunId": run}, "state": state, "force": True} for run in chosen])
        number += 1
        await asyncio.sleep(max(0.0, step - (time.monotonic() - began)))


def note(answers: list[Any], answer: Any) -> None:
    """Keep an answer."""
    answers.append(answer)


def report(what: str, value: float, goal: float, unit: str, more: str = "") -> None:
    """Print a figure with its goal."""
    print(f"{'✓' if value <= goal else '✗'} {what}: {value:.4g} {unit} (goal: at most {goal:g}){more}", flush=True)


async def first_page(browser: Browser) -> None:
    """Print the requests and the size of the first page, and the time to its first rows, without a cache."""
    times, requests, size = [], 0, 0
    for _ in range(5):
        context = await browser.new_context()
        page = await context.new_page()
        answers: list[Any] = []
        page.on("response", partial(note, answers))
        began = time.perf_counter()
        await page.goto(f"{ROOT}#/runs")
        await page.wait_for_selector(".window tbody tr:not(.space)")
        times.append((time.perf_counter() - began) * 1000)
        static = [each for each in answers if not each.url.endswith("/graphql")]
        requests, size = len(answers), sum([int((await each.all_headers())["content-length"]) for each in static])
        await context.close()
    report("first rows after", statistics.median(times), 300, "ms")
    report("first page: requests, with those to the API", requests, 4, "")
    report("first page: size", size / 1000, 90, "KB, compressed")


async def delays(page: Page, ask: Ask, runs: list[str], seconds: float) -> None:
    """Print the delay of transitions at 200 a second, and CPU and heap at 500 a second."""
    await page.goto(f"{ROOT}#/")
    await page.wait_for_selector(".dot.is-live")
    await page.keyboard.press("l")
    await page.wait_for_selector(".ticker", state="attached")
    await page.evaluate(DELAYS)
    await turn(ask, runs, 200, seconds)
    found = sorted(await page.evaluate("window.delays"))
    p50, p99 = (found[int(len(found) * share)] for share in (0.5, 0.99))
    report("transitions at 200/s: on the screen after", p50, 100, "ms (p50)", f"; p99 {p99:.0f} ms, {len(found)} seen")
    await page.keyboard.press("Escape")
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable")
    before = await metrics(session)
    await turn(ask, runs, 500, seconds)
    after = await metrics(session)
    busy = (after["TaskDuration"] - before["TaskDuration"]) / (after["Timestamp"] - before["Timestamp"])
    heap = [each["JSHeapUsedSize"] / 1e6 for each in (before, after)]
    report("overview at 500/s: share of a core", busy * 100, 30, "%")
    report("overview at 500/s: growth of the heap", heap[1] - heap[0], 10, "MB", f"; {heap[0]:.1f} to {heap[1]:.1f} MB")


async def metrics(session: Any) -> dict[str, float]:
    """Return the metrics of a tab after a collection of garbage."""
    await session.send("HeapProfiler.collectGarbage")
    return {each["name"]: each["value"] for each in (await session.send("Performance.getMetrics"))["metrics"]}


async def scrolling(page: Page) -> None:
    """Print the frames of scrolling through all rows."""
    await page.goto(f"{ROOT}#/runs?sort=name")
    await page.wait_for_selector(".window tbody tr:not(.space)")
    loaded = f"document.querySelector('.window').scrollHeight >= {(ROWS - 100) * 32}"
    while not await page.evaluate(loaded):
        await page.evaluate("{ const box = document.querySelector('.window'); box.scrollTop = box.scrollHeight; }")
        await page.wait_for_timeout(10)
    frames = sorted(await page.evaluate(SCROLL, ROWS))
    p99 = frames[int(len(frames) * 0.99)]
    report(f"scrolling {ROWS:,} rows: longest frame", frames[-1], 50, "ms", f"; p99 {p99:.0f} ms, {len(frames)} frames")


async def large_run(page: Page, run: str) -> None:
    """Print the time to open a run with many task runs."""
    await page.goto("about:blank")
    began = time.perf_counter()
    await page.goto(f"{ROOT}#/runs/{run}")
    await page.wait_for_selector(".groups summary")
    report(f"a run with {TASKS:,} task runs: open after", (time.perf_counter() - began) * 1000, 1500, "ms")


async def quiet(page: Page, seconds: float) -> None:
    """Print the number of requests while nothing happens."""
    requests: list[str] = []
    # The same address would not be loaded again.
    await page.goto("about:blank")
    await page.goto(f"{ROOT}#/")
    await page.wait_for_selector("text=By flow")
    await page.wait_for_timeout(REST_MS)
    page.on("request", lambda each: requests.append(each.url))
    await page.wait_for_timeout(seconds * 1000)
    report(f"requests in {seconds:.0f} quiet seconds", len(requests), 0, "")


async def measure(url: str, seconds: float) -> None:
    """Measure everything, and print it."""
    build()
    async with served(url) as ask, async_playwright() as playwright:
        (flow,) = await create(ask, "flow", [{"name": "etl"}])
        runs = await create(ask, "flowRun", [{"flowId": flow, "name": f"run {number}"} for number in range(ROWS)])
        keys = [{"taskKey": f"task {number % 40}", "dynamicKey": str(number)} for number in range(TASKS)]
        for start in range(0, TASKS, TASKS_AT_ONCE):
            part = keys[start : start + TASKS_AT_ONCE]
            await ask(CREATE_TASKS, inputs=[{"flowRunId": runs[0], **key} for key in part])
        program = shutil.which("chromium") or "chromium"
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = await browser.new_page()
        await first_page(browser)
        await large_run(page, runs[0])
        await scrolling(page)
        await delays(page, ask, runs[1:], seconds)
        await quiet(page, 60)
        await browser.close()


def main(seconds: float = 20, database_kind: Kind = "sqlite") -> None:
    """Measure the live page."""
    with tempfile.TemporaryDirectory() as folder, database(database_kind, Path(folder)) as url:
        asyncio.run(measure(url, seconds))


if __name__ == "__main__":
    typer.run(main)
