"""`runstate watch`: a subscription to transitions that resumes when the connection is lost."""

import asyncio
import os
import random
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

import orjson
import typer
import websockets
from rich.console import Console
from rich.text import Text
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

PROTOCOL: Final = Subprotocol("graphql-transport-ws")
FIELDS: Final = """runKind runId stateId flowRunId flowId deploymentId version occurred
  previousStateType previousStateName stateType stateName message
  run { name ... on FlowRun { flow { name } } ... on TaskRun { flowRun { name flow { name } } } }"""
TRANSITIONS: Final = f"""subscription($where: TransitionWhere, $after: String) {{
  transitions(where: $where, after: $after) {{ cursor transitions {{ {FIELDS} }} }} }}"""
EVENTS: Final = """subscription($match: EventMatchInput, $after: String) {
  events(match: $match, after: $after) { cursor events { id name occurred received follows payload
    resource { resourceId name labels } related { resourceId role name labels } } } }"""
RUN: Final = f"""subscription($run: RunRef!, $afterVersion: Int, $untilFinal: Boolean!) {{
  runTransitions(run: $run, afterVersion: $afterVersion, untilFinal: $untilFinal) {{ {FIELDS} }} }}"""
KIND: Final = "query($id: ID!) { node(id: $id) { __typename ... on Run { stateType } } }"

ENDINGS: Final = {"COMPLETED": 0, "FAILED": 1, "CRASHED": 1, "CANCELLED": 2}
"""Exit codes of `--until-final` by the type of the final state."""
INTERRUPTED: Final = 130
"""Exit code after SIGINT, as of a shell."""
REFUSED: Final = 3
"""Exit code if the server rejects the subscription."""
PASSING: Final = {"SLOW_CONSUMER", "RESTARTING", "OVERLOADED", "UNAVAILABLE", "TIMEOUT", "INTERNAL"}
"""Codes of errors after which the subscription is resumed."""
FATAL_CLOSES: Final = range(4400, 4500)
"""Close codes of graphql-transport-ws for errors of the client."""
UNWELCOME: Final = 4403
"""Close code if the key is missing or invalid."""
FATAL_ANSWERS: Final = range(400, 500)
"""HTTP statuses of the handshake for errors of the client."""
NOT_THERE: Final = {403, 404}
"""HTTP statuses of the handshake at a path that is not that of the API."""
SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
"""Schemes of WebSockets by the scheme of the server's URL."""
SHORTEST_SECONDS: Final = 0.2
LONGEST_SECONDS: Final = 10.0
"""Bounds of the pause before a reconnection; it doubles with each failure."""
COLORS: Final = {
    "SCHEDULED": "yellow",
    "PENDING": "yellow",
    "RUNNING": "blue",
    "COMPLETED": "green",
    "FAILED": "red",
    "CRASHED": "red",
    "CANCELLED": "magenta",
    "CANCELLING": "magenta",
    "PAUSED": "cyan",
}

Entry = dict[str, Any]
Show = Callable[[Entry], None]


class LostError(Exception):
    """The stream ended and can be resumed."""


class RefusedError(Exception):
    """The server rejected the request; retrying does not help."""


class UnheardError(Exception):
    """The reader of the output has closed the pipe."""


class Wish(Protocol):
    """A subscription and its position."""

    document: str

    async def variables(self, session: "Session") -> dict[str, Any]:
        """Return the variables that subscribe at the position."""

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the transitions of an event, and advance the position past them."""

    def resume(self, cursor: str) -> None:
        """Set the position to a cursor of the server."""


class Everything:
    """All transitions that match a filter. The position is a cursor."""

    document = TRANSITIONS

    def __init__(self, where: dict[str, Any] | None = None, after: str | None = None) -> None:
        self.where, self.after = where, after

    async def variables(self, _: "Session") -> dict[str, Any]:
        """Return the filter and the cursor."""
        return {"where": self.where, "after": self.after}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the transitions of a batch. The last one gets the batch's cursor, after which one can resume."""
        batch = data["transitions"]
        self.after = batch["cursor"]
        entries: list[Entry] = [named(each) for each in batch["transitions"]]
        return [*entries[:-1], *({**entry, "cursor": self.after} for entry in entries[-1:])]

    def resume(self, cursor: str) -> None:
        """Set the position to a cursor."""
        self.after = cursor


class Events:
    """All events that match. The position is a cursor."""

    document = EVENTS

    def __init__(self, match: dict[str, Any] | None = None, after: str | None = None) -> None:
        self.match, self.after = match, after

    async def variables(self, _: "Session") -> dict[str, Any]:
        """Return the conditions and the cursor."""
        return {"match": self.match, "after": self.after}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the events of a batch. The last one gets the batch's cursor, after which one can resume."""
        batch = data["events"]
        self.after = batch["cursor"]
        return [*batch["events"][:-1], *({**entry, "cursor": self.after} for entry in batch["events"][-1:])]

    def resume(self, cursor: str) -> None:
        """Set the position to a cursor."""
        self.after = cursor


class OneRun:
    """The transitions of one run, optionally until it ends. The position is a version."""

    document = RUN

    def __init__(self, run: str, after_version: int = 0, *, until_final: bool = False) -> None:
        self.run, self.version, self.until_final = run, after_version, until_final
        self.state_type: str | None = None

    async def variables(self, session: "Session") -> dict[str, Any]:
        """Return the reference to the run, whose kind is looked up, and the version."""
        node = (await session.ask(KIND, id=self.run))["node"]
        if node is None or "stateType" not in node:
            raise RefusedError(f"No run has the id {self.run}.")
        # A run that has ended already may have no further transition.
        self.state_type = node["stateType"]
        ref = {"flowRunId" if node["__typename"] == "FlowRun" else "taskRunId": self.run}
        return {"run": ref, "afterVersion": self.version, "untilFinal": self.until_final}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the transition of an event."""
        entry = named(data["runTransitions"])
        self.version, self.state_type = entry["version"], entry["stateType"]
        return [entry]

    def resume(self, cursor: str) -> None:
        """Set the position to a version."""
        self.version = int(cursor)


def named(entry: Entry) -> Entry:
    """Return a transition with the names of its run, flow run and flow, instead of its run; None if it has none."""
    # The run of a transition is null once it is deleted.
    run = entry.pop("run") or {}
    flow_run = run if "flow" in run else run.get("flowRun") or {}
    flow = flow_run.get("flow") or {}
    names = {"runName": run.get("name"), "flowRunName": flow_run.get("name"), "flowName": flow.get("name")}
    return {**entry, **names}


def authorization(key: str) -> str:
    """Return the Authorization header for an API key or for `user:password`."""
    return f"Basic {b64encode(key.encode()).decode()}" if ":" in key else f"Bearer {key}"


class Session:
    """A WebSocket to the server."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def begin(self, key: str | None = None) -> None:
        """Send `connection_init` with the key, if any, and wait for the acknowledgement."""
        await self._send({"type": "connection_init", "payload": {"Authorization": authorization(key)} if key else {}})
        if (await self._receive())["type"] != "connection_ack":
            raise LostError("The server did not acknowledge the connection.")

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """Execute a query and return its data."""
        # Read up to `complete`, after which the id can be used again.
        answers = [data async for data in self.listen(document, variables)]
        return answers[0]

    async def listen(self, document: str, variables: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the data of each event. Raise SubscriptionError if the server ends the operation with an error."""
        await self._send({"type": "subscribe", "id": "1", "payload": {"query": document, "variables": variables}})
        while (message := await self._receive())["type"] != "complete":
            if message["type"] == "ping":
                await self._send({"type": "pong"})
            elif message["type"] == "error":
                raise SubscriptionError(message["payload"][0])
            elif message["type"] == "next" and message["payload"].get("errors"):
                raise SubscriptionError(message["payload"]["errors"][0])
            elif message["type"] == "next":
                yield message["payload"]["data"]

    async def _send(self, message: dict[str, Any]) -> None:
        await self.socket.send(orjson.dumps(message).decode())

    async def _receive(self) -> dict[str, Any]:
        return cast("dict[str, Any]", orjson.loads(await self.socket.recv()))


class SubscriptionError(Exception):
    """The server ended an operation with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message"))
        self.extensions: dict[str, Any] = error.get("extensions") or {}


async def watch(address: str, wish: Wish, show: Show, note: Callable[[str], None], key: str | None = None) -> None:
    """Show transitions until the subscription completes; reconnect when the connection is lost.

    Raise RefusedError if the server rejects the subscription.
    """
    pause = SHORTEST_SECONDS
    while True:
        try:
            async for entry in _entries(address, wish, note, key):
                # The connection works, so the next reconnection need not wait long.
                pause = SHORTEST_SECONDS
                show(entry)
        except (OSError, TimeoutError, LostError, websockets.WebSocketException) as lost:
            insist_on_coming_back(lost)
            note(f"{lost}: reconnecting")
            # Random, so that the clients of a restarted server do not reconnect at the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - not used for secrets
            pause = min(2 * pause, LONGEST_SECONDS)
        else:
            return


async def _entries(address: str, wish: Wish, note: Callable[[str], None], key: str | None) -> AsyncIterator[Entry]:
    async with websockets.connect(address, subprotocols=[PROTOCOL], max_size=2**24) as socket:
        session = Session(socket)
        await session.begin(key)
        note(f"Connected to {address}")
        try:
            async for data in session.listen(wish.document, await wish.variables(session)):
                for entry in wish.take(data):
                    yield entry
        except SubscriptionError as error:
            if error.extensions.get("code") not in PASSING:
                raise RefusedError(_message_of(error)) from error
            # The server's position can be later, because transitions that do not match advance it too.
            if "cursor" in error.extensions:
                wish.resume(error.extensions["cursor"])
            raise LostError(str(error)) from error


def _message_of(error: SubscriptionError) -> str:
    oldest = error.extensions.get("oldest")
    return f"{error} The oldest valid cursor: --after {oldest}" if oldest else str(error)


def insist_on_coming_back(lost: Exception) -> None:
    """Raise RefusedError if reconnecting after this error would fail again."""
    if isinstance(lost, websockets.ConnectionClosed) and lost.rcvd and lost.rcvd.code in FATAL_CLOSES:
        if lost.rcvd.code == UNWELCOME:
            raise RefusedError(
                f"The server requires a valid key: set --key or RUNSTATE_API_KEY ({lost.rcvd.reason})."
            ) from lost
        raise RefusedError(
            lost.rcvd.reason or f"The server closed the connection with code {lost.rcvd.code}."
        ) from lost
    if isinstance(lost, websockets.InvalidStatus) and lost.response.status_code in FATAL_ANSWERS:
        raise RefusedError(refusal(lost.response.status_code, bytes(lost.response.body))) from lost
    if isinstance(lost, websockets.InvalidURI):
        raise RefusedError(str(lost)) from lost


def refusal(status: int, body: bytes) -> str:
    """Return what an HTTP response to the handshake means."""
    if status in NOT_THERE:
        return f"The server has no GraphQL API at this path (HTTP status {status}); its path is /graphql by default."
    return f"The server answered with HTTP status {status}: {body[:200].decode(errors='replace')}"


def socket_address(url: str) -> str:
    """Return the URL of the WebSocket for a server URL with http or ws, with or without a path."""
    scheme, place, path, query, _ = urlsplit(url if "://" in url else f"http://{url}")
    if scheme not in SCHEMES:
        raise RefusedError(f"The URL of a server begins with http:// or https://, not with {scheme}://.")
    return urlunsplit((SCHEMES[scheme], place, path if path not in ("", "/") else "/graphql", query, ""))


def as_json(entry: Entry) -> None:
    """Print a transition as a line of JSON. Raise UnheardError if the pipe is closed."""
    try:
        sys.stdout.write(orjson.dumps(entry).decode() + "\n")
        # Python buffers a pipe, but its reader expects each transition when it is committed.
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise UnheardError from error


class Table:
    """Prints transitions as the rows of a table."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.console.print(Text(f"{'occurred':23}  {'version':>7}  {'state':18}  run", style="bold"), soft_wrap=True)

    def __call__(self, entry: Entry) -> None:
        """Print a transition."""
        occurred = entry["occurred"][:23].replace("T", " ")
        line = Text(f"{occurred}  {entry['version']:7}  ")
        line.append(f"{entry['stateName']:18}", style=COLORS.get(entry["stateType"], ""))
        line.append(f"  {label(entry)}")
        if entry["message"]:
            line.append(f"  {entry['message']}", style="dim")
        self.console.print(line, soft_wrap=True)


class EventTable:
    """Prints events as the rows of a table."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.console.print(Text(f"{'occurred':23}  {'event':36}  resource", style="bold"), soft_wrap=True)

    def __call__(self, entry: Entry) -> None:
        """Print an event."""
        occurred, resource = entry["occurred"][:23].replace("T", " "), entry["resource"]
        named = f"{resource['resourceId']}  {resource['name'] or ''}"
        self.console.print(Text(f"{occurred}  {entry['name']:36}  {named}"), soft_wrap=True)


def label(entry: Entry) -> str:
    """Return the names of the flow, the flow run and the task run; the id of a run that is deleted."""
    names = entry["flowName"], entry["flowRunName"], entry["runName"] if entry["runKind"] == "TASK_RUN" else None
    return " / ".join(filter(None, names)) if entry["runName"] else entry["runId"]


def ending(wish: Wish) -> int:
    """Return the exit code after the subscription has completed."""
    return ENDINGS.get(wish.state_type or "", 0) if isinstance(wish, OneRun) and wish.until_final else 0


def wish_of(run: str | None, where: str | None, after: str | None, *, until_final: bool, events: bool = False) -> Wish:
    """Return the subscription that the options describe. Raise RefusedError if they contradict each other."""
    if events:
        if run is not None or until_final:
            raise RefusedError("--events excludes --run and --until-final.")
        return Events(_parse_filter(where), after)
    if run is None:
        if until_final:
            raise RefusedError("--until-final requires --run.")
        return Everything(_parse_filter(where), after)
    if where is not None:
        raise RefusedError("--run and --where exclude each other.")
    if after is not None and not after.isdecimal():
        raise RefusedError("With --run, --after must be a version.")
    return OneRun(run, int(after or 0), until_final=until_final)


def _parse_filter(text: str | None) -> dict[str, Any] | None:
    try:
        where = None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"--where is not valid JSON: {error}.") from error
    if not isinstance(where, dict | None):
        raise RefusedError("--where must be a JSON object.")
    return where


def run_watch(url: str, wish: Wish, key: str | None = None) -> int:
    """Print transitions until the subscription completes or on SIGINT; return the exit code."""
    table = EventTable if isinstance(wish, Events) else Table
    show: Show = table() if sys.stdout.isatty() else as_json
    try:
        asyncio.run(watch(socket_address(url), wish, show, lambda said: typer.echo(said, err=True), key))
    except KeyboardInterrupt:
        return INTERRUPTED
    except UnheardError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # Python flushes at exit, which would fail on the closed pipe
        return 0
    return ending(wish)
