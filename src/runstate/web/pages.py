"""Routes of the pages: built files, compressed in advance, cached by browsers, and a policy against other hosts."""

from collections.abc import Iterator
from os import PathLike, fspath, stat_result
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from runstate.negotiation import preferred, rank

BUILT: Final = Path(__file__).parent / "built"
ENCODINGS: Final = {"br": ".br", "gzip": ".gz"}
"""Suffixes of compressed files by content encoding, best first."""

GRAPHIQL: Final = "graphiql/"
"""Path of GraphiQL, relative to the root of the server."""

HTML: Final = "text/html"
REPRESENTATIONS: Final = ("application/json", "application/graphql-response+json", "text/event-stream", HTML)
"""Media types of `/graphql`."""

# The pages must load nothing from other hosts.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self' data:; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The editor of GraphiQL inserts style elements.
GRAPHIQL_POLICY: Final = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}
FOREVER: Final = "public, max-age=31536000, immutable"
NOT_BUILT: Final = """<!doctype html><title>runstate</title>
<h1>runstate is running</h1>
<p>GraphQL is at the path <code>graphql</code>. The pages were not built, because npm could not be used
when runstate was installed. To build them, run <code>make pages</code> in the source tree.</p>"""


class Pages(StaticFiles):
    """The built files; if they are missing, a page that explains how to build them."""

    def __init__(self, built: Path = BUILT) -> None:
        # The directory is missing if the pages were not built.
        super().__init__(directory=built, html=True, check_dir=False)
        self.built = built

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] == "http" and not (self.built / "index.html").exists():
            await HTMLResponse(NOT_BUILT, 503, headers=HEADERS)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def file_response(
        self, full_path: PathLike[str] | str, stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return a file, compressed if the browser accepts it. Assets never expire: their names contain a digest."""
        encoding, path = next(variants(fspath(full_path), Headers(scope=scope).get("accept-encoding", "")))
        response = super().file_response(path, Path(path).stat(), scope, status_code)
        response.headers.update(HEADERS)
        if Path(path).parent.name == GRAPHIQL.rstrip("/"):
            response.headers["Content-Security-Policy"] = GRAPHIQL_POLICY
        # index.html names the current assets, so browsers have to revalidate it.
        response.headers["Cache-Control"] = FOREVER if "assets" in Path(path).parts else "no-cache"
        if encoding:
            response.headers["Content-Encoding"] = encoding
        return response


def variants(path: str, accepted: str) -> Iterator[tuple[str, str]]:
    """Yield the encodings and paths in which a file can be sent, best first; the uncompressed file last."""
    for encoding, suffix in ENCODINGS.items():
        if rank(accepted, encoding).quality and Path(path + suffix).exists():
            yield encoding, path + suffix
    yield "", path


def redirect(location: str) -> Response:
    """Return a redirect to a page. The location is relative, because a proxy may change host and path."""
    # GraphQL clients use the same URL, so caches must tell them apart.
    return RedirectResponse(location, 303, headers={"Vary": "Accept"})


class BrowserRedirect:
    """An endpoint that redirects browsers to GraphiQL and passes other requests on."""

    def __init__(self, endpoint: ASGIApp, location: str = GRAPHIQL) -> None:
        self.endpoint = endpoint
        self.to_page = redirect(location)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        await (self.to_page if wants_page(scope) else self.endpoint)(scope, receive, send)


def wants_page(scope: Scope) -> bool:
    """Return whether a person opened the URL in a browser: HTML is preferred, and there is no query."""
    if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
        return False
    wants_html = preferred(Headers(scope=scope).get("accept"), REPRESENTATIONS) == HTML
    # A URL with a query is a GraphQL request, even in a browser.
    return wants_html and "query" not in QueryParams(scope["query_string"])


def is_page_path(scope: Scope) -> bool:
    """Return whether a request is for a page, one of its files, or a redirect to it."""
    path = scope["path"]
    is_way = path.rstrip("/") == "/graphql" and wants_page(scope)
    return is_way or path in {"/", "/graphiql"} or path.startswith((*FOLDERS, RUNS))


FOLDERS: Final = ("/assets/", "/graphiql/")
RUNS: Final = "/runs/flow-run/"
"""Path of a run on the pages of Prefect, which its clients print."""


async def to_run(request: Request) -> Response:
    """Redirect to a run on the live page."""
    return redirect(f"../../#/runs/{quote(request.path_params['id'], safe='')}")


def routes(pages: Pages | None = None) -> list[BaseRoute]:
    """Return the routes of the pages: the live page at the root, GraphiQL below it."""
    files = pages or Pages()
    folders = (Route(f"{folder}{{path:path}}", files) for folder in FOLDERS)
    graphiql = Route("/graphiql", redirect(GRAPHIQL), methods=["GET"])
    return [Route("/", files), graphiql, Route(f"{RUNS}{{id}}", to_run), *folders]
