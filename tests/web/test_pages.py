"""The pages over HTTP: their paths, compression, caching and security headers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from runstate.app import build_app
from runstate.settings import Settings
from runstate.web.pages import Pages, routes
from tests.client import running

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SCRIPT = "assets/page-DoLErYEN.js"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with files as Vite builds them, with compressed copies."""
    for folder in ("assets", "graphiql"):
        (tmp_path / folder).mkdir()
    texts = {"index.html": "<html>", "graphiql/index.html": "GraphiQL", SCRIPT: "page", "assets/small.svg": "<svg>"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    for suffix in (".br", ".gz"):
        (tmp_path / f"{SCRIPT}{suffix}").write_text(f"compressed{suffix}")
    return tmp_path


def opened(app: Starlette) -> httpx.AsyncClient:
    """Return a client that does not follow redirects."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200")


@pytest.fixture
async def pages(files: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the pages."""
    async with opened(Starlette(routes=routes(Pages(files)))) as client:
        yield client


@pytest.fixture
async def browser(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the whole application."""
    async with opened(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/graphql", "/graphiql"])
async def test_browsers_are_redirected_to_graphiql(browser: httpx.AsyncClient, path: str) -> None:
    response = await browser.get(path, headers=HTML)

    assert response.status_code == 303
    assert response.headers["location"] == "graphiql/"


async def test_a_browser_that_asks_a_query_is_answered(browser: httpx.AsyncClient) -> None:
    response = await browser.get("/graphql?query={__typename}", headers=HTML)

    assert "location" not in response.headers
    assert response.json()


async def test_other_clients_are_not_redirected(browser: httpx.AsyncClient) -> None:
    response = await browser.post("/graphql", json={"query": "{ __typename }"}, headers={"Accept": "*/*"})

    assert response.json()["data"] == {"__typename": "Query"}
    assert (await browser.get("/graphql")).status_code == 400


async def test_the_address_of_a_run_that_clients_of_prefect_print_leads_to_the_page(browser: httpx.AsyncClient) -> None:
    response = await browser.get("/runs/flow-run/0190b2c4-0000-7000-8000-000000000001")

    assert response.status_code == 303
    assert response.headers["location"] == "../../#/runs/0190b2c4-0000-7000-8000-000000000001"


async def test_the_pages_can_be_turned_off(url: str) -> None:
    async with AsyncExitStack() as opening:
        app = build_app(Settings(database_url=url, services="off", graphiql=False))
        await opening.enter_async_context(running(app))
        browser = await opening.enter_async_context(opened(app))
        paths = ("/", "/assets/x.js", "/graphiql", "/graphiql/")
        codes = [(await browser.get(path, headers=HTML)).status_code for path in paths]

        assert codes == [404] * 4
        assert (await browser.get("/graphql", headers=HTML)).status_code != 303


async def test_the_page_is_revalidated_and_may_connect_to_this_server_only(pages: httpx.AsyncClient) -> None:
    response = await pages.get("/")

    assert response.text == "<html>"
    assert response.headers["cache-control"] == "no-cache"
    policy = response.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in " ".join(policy)
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_only_graphiql_may_insert_style_elements(pages: httpx.AsyncClient) -> None:
    response = await pages.get("/graphiql/")

    assert response.text == "GraphiQL"
    assert "style-src 'self' 'unsafe-inline'" in response.headers["content-security-policy"]


async def test_an_unchanged_file_is_not_sent_again(pages: httpx.AsyncClient) -> None:
    first = await pages.get("/")
    again = await pages.get("/", headers={"If-None-Match": first.headers["etag"]})

    assert again.status_code == 304


@pytest.mark.parametrize(
    ("accepted", "encoding", "body"),
    [
        ("gzip, deflate, br, zstd", "br", b"compressed.br"),
        ("gzip", "gzip", b"compressed.gz"),
        ("br;q=0, gzip;q=0.5", "gzip", b"compressed.gz"),
        ("identity", None, b"page"),
        ("", None, b"page"),
    ],
)
async def test_files_are_sent_in_the_smallest_accepted_encoding(
    pages: httpx.AsyncClient, accepted: str, encoding: str | None, body: bytes
) -> None:
    async with pages.stream("GET", f"/{SCRIPT}", headers={"Accept-Encoding": accepted}) as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])

    assert raw == body
    assert response.headers.get("content-encoding") == encoding
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_a_file_without_compressed_copies_is_sent_uncompressed(pages: httpx.AsyncClient) -> None:
    response = await pages.get("/assets/small.svg")

    assert response.text == "<svg>"
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("path", ["assets/nothing.js", "assets/..%2f..%2fetc%2fpasswd", "graphiql/%00", "assets/"])
async def test_an_unknown_file_is_not_found(pages: httpx.AsyncClient, path: str) -> None:
    assert (await pages.get(f"/{path}")).status_code == 404


async def test_without_a_page_the_server_explains_how_to_build_it(files: Path) -> None:
    (files / "index.html").unlink()
    async with opened(Starlette(routes=routes(Pages(files)))) as client:
        response = await client.get("/")

    assert response.status_code == 503
    assert "make pages" in response.text
