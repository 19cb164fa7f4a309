"""`runstate logs`: the lines of a run, its task runs and subflow runs; optionally as they are written."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import typer
import websockets
from rich.console import Console
from rich.text import Text

from runstate.cli.watch import INTERRUPTED, watch
from runstate.client.errors import RefusedError
from runstate.client.sockets import PROTOCOL, Entry, Session, SubscriptionError, insist_on_coming_back, socket_address

LINE: Final = "timestamp level levelName logger message"
PAGE: Final = f"""query($tree: ID, $where: LogWhere, $after: String) {{
  logs(tree: $tree, where: $where, first: 200, after: $after) {{
    nodes {{ {LINE} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
LIVE: Final = f"""subscription($tree: ID, $where: LogWhere, $after: String, $tail: Int!, $untilFinal: Boolean!) {{
  logs(tree: $tree, where: $where, after: $after, tail: $tail, untilFinal: $untilFinal) {{
    cursor logs {{ {LINE} }} }} }}"""
KIND: Final = "query($id: ID!) { node(id: $id) { __typename } }"
WARNING, ERROR = 30, 40

Show = Callable[[Entry], None]


class LiveLogs:
    """The last lines of a run, and then new ones; those of a flow run end with it. The position is a cursor."""

    document = LIVE

    def __init__(self, run: str, tail: int) -> None:
        self.run, self.tail = run, tail
        self.after: str | None = None

    async def variables(self, session: Session) -> dict[str, Any]:
        """Return the variables that subscribe at the position."""
        wanted = await lines_of(session, self.run)
        return {**wanted, "after": self.after, "tail": 0 if self.after else self.tail, "untilFinal": "tree" in wanted}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the lines of a batch, and advance the position behind them."""
        batch = data["logs"]
        self.after = batch["cursor"]
        lines: list[Entry] = batch["logs"]
        return lines

    def resume(self, cursor: str) -> None:
        """Set the position to a cursor."""
        self.after = cursor


async def lines_of(session: Session, run: str) -> dict[str, Any]:
    """Return the variables for the lines of a flow run, with its subflow runs, or of a task run."""
    node = (await session.ask(KIND, id=run))["node"]
    kind = node and node["__typename"]
    if kind not in {"FlowRun", "TaskRun"}:
        raise RefusedError(f"No run has the id {run}.")
    return {"tree": run} if kind == "FlowRun" else {"where": {"taskRunId": {"eq": run}}}


async def existing(address: str, run: str, key: str | None) -> AsyncIterator[Entry]:
    """Yield the existing lines of a run, oldest first. Raise RefusedError if the server rejects the query."""
    async with websockets.connect(address, subprotocols=[PROTOCOL], max_size=2**26) as socket:
        session = Session(socket)
        await session.begin(key)
        wanted, after, more = await lines_of(session, run), None, True
        while more:
            try:
                page = (await session.ask(PAGE, **wanted, after=after))["logs"]
            except SubscriptionError as error:
                raise RefusedError(str(error)) from error
            for line in page["nodes"]:
                yield line
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]


async def show_existing(url: str, run: str, key: str | None, show: Show) -> None:
    """Show the existing lines of a run. Raise RefusedError if the server is unreachable."""
    try:
        async for line in existing(socket_address(url), run, key):
            show(line)
    except (OSError, websockets.WebSocketException) as error:
        insist_on_coming_back(error)
        raise RefusedError(f"Cannot connect to a server at {url}: {error}") from error


class Lines:
    """Prints lines, with colors on a terminal."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)

    def __call__(self, line: Entry) -> None:
        """Print a line."""
        color = "red" if line["level"] >= ERROR else "yellow" if line["level"] >= WARNING else ""
        text = Text(f"{line['timestamp'][:23].replace('T', ' ')}  ")
        text.append(f"{line['levelName']:8}", style=color)
        text.append(f"  {line['logger']}", style="dim")
        text.append(f"  {line['message']}")
        self.console.print(text, soft_wrap=True)


def run_logs(url: str, run: str, tail: int, key: str | None, *, follow: bool) -> int:
    """Print lines until there are no more, or until the run ends or SIGINT if they are followed; return the code."""
    show = Lines()
    try:
        if follow:
            note = typer.echo
            asyncio.run(watch(socket_address(url), LiveLogs(run, tail), show, lambda said: note(said, err=True), key))
        else:
            asyncio.run(show_existing(url, run, key, show))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
