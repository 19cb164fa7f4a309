"""`runstate watch`: transitions as they come, however often the connection is lost."""

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
RUN: Final = f"""subscription($run: RunRef!, $afterVersion: Int, $untilFinal: Boolean!) {{
  runTransitions(run: $run, afterVersion: $afterVersion, untilFinal: $untilFinal) {{ {FIELDS} }} }}"""
KIND: Final = "query($id: ID!) { node(id: $id) { __typename ... on Run { stateType } } }"

ENDINGS: Final = {"COMPLETED": 0, "FAILED": 1, "CRASHED": 1, "CANCELLED": 2}
"""What `--until-final` exits with."""
INTERRUPTED: Final = 130
REFUSED: Final = 3
"""What is exited with when the server does not want to tell."""
PASSING: Final = {"SLOW_CONSUMER", "RESTARTING", "OVERLOADED", "UNAVAILABLE", "TIMEOUT", "INTERNAL"}
"""Errors after which it is worth coming back."""
FATAL_CLOSES: Final = range(4400, 4500)
UNWELCOME: Final = 4403
NOT_THERE: Final = {403, 404}
"""HTTP statuses with which servers refuse WebSockets at other paths than that of the API."""
FATAL_ANSWERS: Final = range(400, 500)
SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
"""Schemes of a server's address, and of its WebSocket."""
SHORTEST_SECONDS: Final = 0.2
LONGEST_SECONDS: Final = 10.0
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
    """The stream ended, and goes on elsewhere or later."""


class RefusedError(Exception):
    """The server does not want to tell, and will not change its mind."""


class UnheardError(Exception):
    """Nobody reads what is printed."""


class Wish(Protocol):
    """What is to be watched, and how far it was."""

    document: str

    async def variables(self, session: "Session") -> dict[str, Any]:
        """What to subscribe with, so that it goes on where it was."""

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """The transitions of an event, which count as seen from now on."""

    def resume(self, cursor: str) -> None:
        """Go on after this."""


class Everything:
    """Transitions that meet a condition."""

    document = TRANSITIONS

    def __init__(self, where: dict[str, Any] | None = None, after: str | None = None) -> None:
        self.where, self.after = where, after

    async def variables(self, _: "Session") -> dict[str, Any]:
        """The condition, and the cursor."""
        return {"where": self.where, "after": self.after}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """A batch; the last of its transitions carries the cursor after which one goes on."""
        batch = data["transitions"]
        self.after = batch["cursor"]
        entries: list[Entry] = [named(each) for each in batch["transitions"]]
        return [*entries[:-1], *({**entry, "cursor": self.after} for entry in entries[-1:])]

    def resume(self, cursor: str) -> None:
        """Go on after this cursor."""
        self.after = cursor


class OneRun:
    """The transitions of one run, for ever or to its end."""

    document = RUN

    def __init__(self, run: str, after_version: int = 0, *, until_final: bool = False) -> None:
        self.run, self.version, self.until_final = run, after_version, until_final
        self.state_type: str | None = None

    async def variables(self, session: "Session") -> dict[str, Any]:
        """Which kind of run it is, and the version."""
        node = (await session.ask(KIND, id=self.run))["node"]
        if node is None or "stateType" not in node:
            raise RefusedError(f"No run has the id {self.run}.")
        self.state_type = node["stateType"]
        ref = {"flowRunId" if node["__typename"] == "FlowRun" else "taskRunId": self.run}
        return {"run": ref, "afterVersion": self.version, "untilFinal": self.until_final}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """One transition."""
        entry = named(data["runTransitions"])
        self.version, self.state_type = entry["version"], entry["stateType"]
        return [entry]

    def resume(self, cursor: str) -> None:
        """Go on after this version."""
        self.version = int(cursor)


def named(entry: Entry) -> Entry:
    """Return a transition with the names of its run, flow run and flow; null if they are deleted, or there is none."""
    run = entry.pop("run") or {}
    flow_run = run if "flow" in run else run.get("flowRun") or {}
    flow = flow_run.get("flow") or {}
    names = {"runName": run.get("name"), "flowRunName": flow_run.get("name"), "flowName": flow.get("name")}
    return {**entry, **names}


def authorization(key: str) -> str:
    """What a key is sent as; `user:password` is what a server has in RUNSTATE_AUTH_STRING."""
    return f"Basic {b64encode(key.encode()).decode()}" if ":" in key else f"Bearer {key}"


class Session:
    """One connection to the server."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def begin(self, key: str | None = None) -> None:
        """Say hello, and who it is if the server asks for a key."""
        await self._say({"type": "connection_init", "payload": {"Authorization": authorization(key)} if key else {}})
        if (await self._hear())["type"] != "connection_ack":
            raise LostError("The server does not answer as it should.")

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """The data of the answer to a query."""
        answers = [data async for data in self.listen(document, variables)]
        return answers[0]

    async def listen(self, document: str, variables: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The data of each event; LostError and RefusedError say why there are no more."""
        await self._say({"type": "subscribe", "id": "1", "payload": {"query": document, "variables": variables}})
        while (message := await self._hear())["type"] != "complete":
            if message["type"] == "ping":
                await self._say({"type": "pong"})
            elif message["type"] == "error":
                raise SubscriptionError(message["payload"][0])
            elif message["type"] == "next" and message["payload"].get("errors"):
                raise SubscriptionError(message["payload"]["errors"][0])
            elif message["type"] == "next":
                yield message["payload"]["data"]

    async def _say(self, message: dict[str, Any]) -> None:
        await self.socket.send(orjson.dumps(message).decode())

    async def _hear(self) -> dict[str, Any]:
        return cast("dict[str, Any]", orjson.loads(await self.socket.recv()))


class SubscriptionError(Exception):
    """The server ended a subscription."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message"))
        self.extensions: dict[str, Any] = error.get("extensions") or {}


async def watch(address: str, wish: Wish, show: Show, note: Callable[[str], None], key: str | None = None) -> None:
    """Show transitions until there are no more; connect again whenever the connection is lost.

    RefusedError: the server does not want to tell.
    """
    pause = SHORTEST_SECONDS
    while True:
        try:
            async for entry in _told(address, wish, note, key):
                pause = SHORTEST_SECONDS
                show(entry)
        except (OSError, TimeoutError, LostError, websockets.WebSocketException) as lost:
            insist_on_coming_back(lost)
            note(f"{lost}: connecting again")
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - it keeps no secrets
            pause = min(2 * pause, LONGEST_SECONDS)
        else:
            return


async def _told(address: str, wish: Wish, note: Callable[[str], None], key: str | None) -> AsyncIterator[Entry]:
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
                raise RefusedError(_said(error)) from error
            if "cursor" in error.extensions:
                wish.resume(error.extensions["cursor"])
            raise LostError(str(error)) from error


def _said(error: SubscriptionError) -> str:
    oldest = error.extensions.get("oldest")
    return f"{error} The oldest that is kept: --after {oldest}" if oldest else str(error)


def insist_on_coming_back(lost: Exception) -> None:
    """RefusedError: there is no point in it."""
    if isinstance(lost, websockets.ConnectionClosed) and lost.rcvd and lost.rcvd.code in FATAL_CLOSES:
        if lost.rcvd.code == UNWELCOME:
            raise RefusedError(
                f"It needs a key that lets in, as --key or RUNSTATE_API_KEY: {lost.rcvd.reason}."
            ) from lost
        raise RefusedError(lost.rcvd.reason or f"The server closed the connection: {lost.rcvd.code}.") from lost
    if isinstance(lost, websockets.InvalidStatus) and lost.response.status_code in FATAL_ANSWERS:
        raise RefusedError(refusal(lost.response.status_code, bytes(lost.response.body))) from lost
    if isinstance(lost, websockets.InvalidURI):
        raise RefusedError(str(lost)) from lost


def refusal(status: int, body: bytes) -> str:
    """Return the meaning of an HTTP answer to the opening of a WebSocket."""
    if status in NOT_THERE:
        return f"There is no GraphQL API at this path, which is usually /graphql: the server answers {status}."
    return f"The server answers {status}: {body[:200].decode(errors='replace')}"


def socket_address(url: str) -> str:
    """Where the WebSocket is, of a server whose address was given as http or ws, with or without a path."""
    scheme, place, path, query, _ = urlsplit(url if "://" in url else f"http://{url}")
    if scheme not in SCHEMES:
        raise RefusedError(f"The address of a server begins with http:// or https://, not with {scheme}://.")
    return urlunsplit((SCHEMES[scheme], place, path if path not in ("", "/") else "/graphql", query, ""))


def as_json(entry: Entry) -> None:
    """Print a transition on a line of its own."""
    try:
        sys.stdout.write(orjson.dumps(entry).decode() + "\n")
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


def label(entry: Entry) -> str:
    """Return the names of the flow, the flow run and the task run; the id of a run that is deleted."""
    names = entry["flowName"], entry["flowRunName"], entry["runName"] if entry["runKind"] == "TASK_RUN" else None
    return " / ".join(filter(None, names)) if entry["runName"] else entry["runId"]


def ending(wish: Wish) -> int:
    """What to exit with when there is no more to tell."""
    return ENDINGS.get(wish.state_type or "", 0) if isinstance(wish, OneRun) and wish.until_final else 0


def wish_of(run: str | None, where: str | None, after: str | None, *, until_final: bool) -> Wish:
    """What the options ask for; RefusedError: they contradict each other."""
    if run is None:
        if until_final:
            raise RefusedError("--until-final needs --run.")
        return Everything(_object(where), after)
    if where is not None:
        raise RefusedError("Either --run or --where.")
    if after is not None and not after.isdecimal():
        raise RefusedError("With --run, --after is a version.")
    return OneRun(run, int(after or 0), until_final=until_final)


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        where = None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"--where is no JSON: {error}.") from error
    if not isinstance(where, dict | None):
        raise RefusedError("--where is a JSON object, a TransitionWhere.")
    return where


def run_watch(url: str, wish: Wish, key: str | None = None) -> int:
    """Watch until there are no more transitions, or somebody wants no more; what to exit with."""
    show: Show = Table() if sys.stdout.isatty() else as_json
    try:
        asyncio.run(watch(socket_address(url), wish, show, lambda said: typer.echo(said, err=True), key))
    except KeyboardInterrupt:
        return INTERRUPTED
    except UnheardError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is flushed at the exit goes nowhere
        return 0
    return ending(wish)
