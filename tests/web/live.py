"""The live page, as a user operates it."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response, Route, ViewportSize, expect

from runstate.web.build import HERE

PICTURES = Path(__file__).parent.parent.parent / "build" / "screenshots"
AXE = HERE / "node_modules/axe-core/axe.min.js"
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FIND = f"axe.run({{ runOnly: {STANDARDS} }})"
PHONE, DESK = ViewportSize(width=390, height=844), ViewportSize(width=1280, height=800)
MODES: dict[str, tuple[Any, Any]] = {"light": (DESK, "light"), "dark": (DESK, "dark"), "phone": (PHONE, "dark")}
"""Viewport and colour scheme of each kind of screenshot."""

# Machines that run tests can be busy.
expect.set_options(timeout=int(__import__("os").environ.get("PT", "30000")))
COUNT = """{
  const send = fetch;
  window.asked = [];
  window.fetch = (...request) => {
    const answer = send(...request);
    asked.push(answer.then(each => each.clone().arrayBuffer()));
    return answer;
  };
}"""
"""Script that notes the answers to the requests of the page."""
NAMED = {
    *("button", "checkbox", "combobox", "dialog", "DisclosureTriangle", "link", "listbox", "meter", "navigation"),
    *("option", "progressbar", "radio", "region", "searchbox", "spinbutton", "tab", "tabpanel", "textbox"),
}
"""Roles that a screen reader says with a name."""
CALM = 3
"""Number of looks without a request after which a page is at rest."""
GO = """view => new Promise(done => {
  location.hash = `#/${view}`;
  requestAnimationFrame(() => requestAnimationFrame(done));
})"""
"""Function that shows a view and waits until the one before it is gone."""
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Expression that waits until what was done is drawn."""


class LivePage:
    """A tab with the live page."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.root = f"http://{address.removesuffix('graphql')}"
        self.complaints: list[str] = []
        """Warnings and errors of the console."""
        self.strayed: list[str] = []
        """URLs of requests to other hosts, which are aborted."""
        self.files: list[Response] = []
        self.queries: list[Request] = []
        """Requests to the API over HTTP."""
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        page.on("response", self._note)

    def _listen(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            self.complaints.append(said.text)

    def _asked(self, request: Request) -> None:
        # Noted when it is sent: an answer can come much later.
        if request.url.endswith("/graphql"):
            self.queries.append(request)

    def _note(self, response: Response) -> None:
        if not response.url.endswith("/graphql"):
            self.files.append(response)

    async def _stay(self, route: Route, request: Request) -> None:
        if request.url.startswith((self.root, "blob:", "data:")):
            await route.continue_()
        else:
            self.strayed.append(request.url)
            await route.abort()

    async def open(self, view: str = "") -> None:
        """Open a view, and wait until it follows the transitions."""
        await self.page.add_init_script(COUNT)
        await self.page.route("**/*", self._stay)
        await self.page.goto(f"{self.root}#/{view}")
        await expect(self.page.locator(".dot")).to_have_class(re.compile("is-live"))

    async def show(self, view: str, text: str) -> None:
        """Show a view, and wait until it contains a text."""
        await self.page.evaluate(GO, view)
        await self.sees(text)

    async def sees(self, text: str) -> None:
        """Wait until the page contains a text."""
        await expect(self.page.locator("body")).to_contain_text(text)

    async def press(self, *keys: str) -> None:
        """Press keys one after another."""
        for key in keys:
            await self.page.keyboard.press(key)

    async def asked(self) -> int:
        """Return the number of requests that the page has sent since it was opened."""
        return int(await self.page.evaluate("asked.length"))

    async def rest(self) -> None:
        """Let time pass until every change that was seen has been read."""
        calm = 0
        while calm < CALM:
            before = await self.asked()
            # A view reads again after a change, with a pause.
            await self.page.clock.run_for(6_000)
            await self.page.evaluate("Promise.allSettled(asked).then(() => {})")
            calm = calm + 1 if await self.asked() == before else 0

    async def rows(self, count: int) -> list[list[str]]:
        """Wait for a number of runs in the list; return the name and the state of each."""
        cells = "rows => rows.map(row => [1, 2].map(cell => row.cells[cell].innerText))"
        drawn = self.page.locator(".window tbody tr:not(.space)")
        await expect(drawn).to_have_count(count)
        rows: list[list[str]] = await drawn.evaluate_all(cells)
        return rows

    async def size(self) -> int:
        """Return the number of bytes that the files of the page have had on their way."""
        return sum([int((await each.all_headers())["content-length"]) for each in self.files])

    async def judge(self, name: str) -> list[str]:
        """Save a screenshot in each mode; return findings about accessibility and about what is cut off."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        found = []
        for mode, (size, scheme) in MODES.items():
            await self.page.set_viewport_size(size)
            await self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            await self.page.screenshot(path=PICTURES / f"page-{name}-{mode}.png")
            wide = await self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
            # The phone is dark, so both themes are looked at.
            findings = [] if mode == "dark" else [*await self.axe(), *await self.said()]
            found += [f"{name} {mode} {each}" for each in [*(["is too wide"] if wide else []), *findings]]
        return found

    async def axe(self) -> list[str]:
        """Return the findings of axe about what is shown."""
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(AXE.read_text())
        violations = (await self.page.evaluate(FIND))["violations"]
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in violations]

    async def said(self) -> list[str]:
        """Return what a screen reader has no name for, and what would interrupt it."""
        session = await self.page.context.new_cdp_session(self.page)
        nodes = (await session.send("Accessibility.getFullAXTree"))["nodes"]
        await session.detach()
        return [f"{role}: {finding}" for node in nodes for role, finding in findings_of(node)]


def findings_of(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the role of a node and a finding: a name without a letter or digit, or a live region that interrupts."""
    role, name = (str(node.get(key, {}).get("value", "")) for key in ("role", "name"))
    live = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}.get("live")
    if node["ignored"]:
        return
    if role in NAMED and not any(map(str.isalnum, name)):
        yield role, f"{name!r} is no name"
    if live == "assertive":
        yield role, f"{name!r} interrupts"


@asynccontextmanager
async def watching(browser: Browser, address: str, view: str = "") -> AsyncIterator[LivePage]:
    """Yield an open page in a browser context of its own."""
    context = await browser.new_context(viewport=MODES["light"][0])
    page = LivePage(await context.new_page(), address)
    await page.page.clock.install()
    await page.open(view)
    yield page
    await context.close()
