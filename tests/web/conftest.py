"""Fixtures for tests of the pages: built pages and a browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from urllib.parse import quote_plus

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, Route, async_playwright, expect

from runstate.cli.demo import demo
from runstate.client.sockets import socket_address
from runstate.web.build import HERE
from tests.client import Ask
from tests.node import alone, lacking
from tests.subscribing import Listening, asking, listening
from tests.web.live import PICTURES, LivePage, watching

VARIABLES = ".graphiql-editor-tool .graphiql-editor:not(.hidden) .view-lines"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


@pytest.fixture(scope="session")
def built() -> None:
    """Build the pages from their sources unless they are built."""
    with alone(HERE):
        command = [sys.executable, "-m", "runstate.web.build"]
        done = subprocess.run(command, cwd=HERE.parent.parent, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lacking(f"The pages cannot be built here: {done.stderr[-500:]}")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Yield a Chromium."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        lacking("There is no Chromium: apt-get install chromium.")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def server(built: None, url: str) -> AsyncIterator[Listening]:
    """Yield a server in this process, with pages and the services that fire automations."""
    async with listening(url, services="automations,actions") as server:
        yield server


@pytest.fixture
async def live(server: Listening) -> AsyncIterator[Ask]:
    """Yield a client of the server over HTTP."""
    async with asking(server) as live:
        yield live


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


class GraphiQL:
    """The page GraphiQL, as a user operates it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        """Warnings and errors of the console."""
        self.strayed: list[str] = []
        """URLs of requests to other hosts, which are aborted."""
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            self.complaints.append(said.text)

    async def open(self, address: str) -> None:
        """Open the page and wait until it is ready."""
        await self.page.route("**/*", self._stay)
        await self.page.goto(f"http://{address}")
        await self.page.wait_for_selector(".graphiql-query-editor .view-line")

    async def _stay(self, route: Route, request: Request) -> None:
        if request.url.startswith(("http://127.0.0.1:", "blob:", "data:")):
            await route.continue_()
        else:
            self.strayed.append(request.url)
            await route.abort()

    async def knows_the_schema(self) -> None:
        """Wait until the schema is loaded."""
        await self.page.get_by_label("Show Documentation Explorer").click()
        await self.page.wait_for_selector(".graphiql-doc-explorer-content >> text=Query")
        await self.page.get_by_label("Hide Documentation Explorer").click()

    async def type(self, text: str) -> None:
        """Type a query in a new tab."""
        await self.page.get_by_label("New tab").click()
        await self.page.locator(".graphiql-query-editor .view-lines").first.click()
        await self.page.keyboard.press("ControlOrMeta+A")
        await self.page.keyboard.type(text, delay=5)

    async def show(self, tab: str) -> None:
        """Select a tab and wait until the page has stored it with its operations."""
        await self.page.locator(f'.graphiql-tab-button[title="{tab}"]').click()
        await self.page.wait_for_function(
            """tab => {
              const { tabs, activeTabIndex } = JSON.parse(localStorage.getItem("graphiql:tabState") ?? "{}");
              return tabs?.[activeTabIndex].title === tab;
            }""",
            arg=tab,
        )

    async def headers(self, text: str) -> None:
        """Type headers for the tab."""
        await self.page.get_by_role("button", name="Headers").click()
        await self.page.locator('.graphiql-editor[aria-label="Headers"], section[aria-label="Headers"]').last.click()
        await self.page.keyboard.type(text, delay=5)

    async def variables(self, text: str) -> None:
        """Type variables for the tab's query."""
        await self.page.locator(VARIABLES).click()
        await self.page.keyboard.press("ControlOrMeta+A")
        await self.page.keyboard.type(text, delay=5)

    async def has_variables(self, text: str) -> None:
        """Wait until the variables contain a text."""
        await expect(self.page.locator(VARIABLES)).to_contain_text(text)

    async def link(self, text: str) -> str:
        """Wait until the address contains a text; return the address."""
        await expect(self.page).to_have_url(re.compile(re.escape(quote_plus(text))))
        return self.page.url

    async def run(self) -> None:
        """Execute the tab's query."""
        await self.page.get_by_label("Execute query (Ctrl-Enter)").click()

    async def stop(self) -> None:
        """Stop a subscription."""
        await self.page.get_by_label("Stop query (Ctrl-Enter)").click()

    async def reads(self, text: str) -> None:
        """Wait until the query in the tab equals a text."""
        await expect(self.page.locator(".graphiql-query-editor .view-lines").first).to_have_text(text)

    async def sees(self, text: str) -> None:
        """Wait until the answer contains a text."""
        await self.page.wait_for_function(
            """text => document.querySelector(".graphiql-response .view-lines")?.innerText
                 .replaceAll("\\u00a0", " ").includes(text)""",
            arg=text,
        )

    async def picture(self, name: str) -> None:
        """Save a screenshot."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=PICTURES / f"{name}.png")


@asynccontextmanager
async def looking_at(browser: Browser, address: str) -> AsyncIterator[GraphiQL]:
    """Yield the page of a server in a browser context of its own."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    graphiql = GraphiQL(await context.new_page())
    await graphiql.open(address)
    yield graphiql
    await context.close()


@pytest.fixture
async def graphiql(server: Listening, browser: Browser) -> AsyncIterator[GraphiQL]:
    """Yield the open page; check afterwards that there were no complaints and no requests to other hosts."""
    async with looking_at(browser, server.address) as graphiql:
        await graphiql.knows_the_schema()
        yield graphiql
    assert (graphiql.complaints, graphiql.strayed) == ([], [])
