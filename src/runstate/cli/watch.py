"""`runstate watch`: a subscription to transitions that resumes when the connection is lost."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any, Final

import orjson
import typer
from rich.console import Console
from rich.text import Text

from runstate.client.errors import RefusedError
from runstate.client.sockets import Entry, Session, Subscription, following, socket_address

FIELDS: Final = """runKind runId stateId flowRunId flowId deploymentId version occurred
  previousStateType previousStateName stateType stateName message
  run { name ... on FlowRun { flow { name } } ... on TaskRun { flowRun { name flow { name } } } }"""
TRANSITIONS: Final = f"""subscription($where: TransitionWhere, $after: String) {{
  transitions(where: $where, after: $after) {{ cursor transitions {{ {FIELDS} }} }} }}"""
RUN: Final = f"""subscription($run: RunRef!, $afterVersion: Int, $untilFinal: Boolean!) {{
  runTransitions(run: $run, afterVersion: $afterVersion, untilFinal: $untilFinal) {{ {FIELDS} }} }}"""
KIND: Final = "query($id: ID!) { node(id: $id) { __typename ... on Run { stateType } } }"

ENDINGS: Final = {"COMPLETED": 0, "FAILED": 1, "CRASHED": 1, "CANCELLED": 2}
"""Exit codes of `--until-final` by the type of the final state."""
INTERRUPTED: Final = 130
"""Exit code after SIGINT, as of a shell."""
REFUSED: Final = 3
"""Exit code if the server rejects the subscription."""
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

Show = Callable[[Entry], None]


class UnheardError(Exception):
    """The reader of the output has closed the pipe."""


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


async def watch(
    address: str, subscription: Subscription, show: Show, note: Callable[[str], None], key: str | None = None
) -> None:
    """Show the entries of a subscription until it completes. Raise RefusedError if the server rejects it."""
    async for entry in following(address, subscription, note, key):
        show(entry)


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


def label(entry: Entry) -> str:
    """Return the names of the flow, the flow run and the task run; the id of a run that is deleted."""
    names = entry["flowName"], entry["flowRunName"], entry["runName"] if entry["runKind"] == "TASK_RUN" else None
    return " / ".join(filter(None, names)) if entry["runName"] else entry["runId"]


def ending(subscription: Subscription) -> int:
    """Return the exit code after the subscription has completed."""
    return (
        ENDINGS.get(subscription.state_type or "", 0)
        if isinstance(subscription, OneRun) and subscription.until_final
        else 0
    )


def subscription_of(run: str | None, where: str | None, after: str | None, *, until_final: bool) -> Subscription:
    """Return the subscription that the options describe. Raise RefusedError if they contradict each other."""
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
        raise RefusedError("--where must be a JSON object, a TransitionWhere.")
    return where


def run_watch(url: str, subscription: Subscription, key: str | None = None) -> int:
    """Print transitions until the subscription completes or on SIGINT; return the exit code."""
    show: Show = Table() if sys.stdout.isatty() else as_json
    try:
        asyncio.run(watch(socket_address(url), subscription, show, lambda said: typer.echo(said, err=True), key))
    except KeyboardInterrupt:
        return INTERRUPTED
    except UnheardError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # Python flushes at exit, which would fail on the closed pipe
        return 0
    return ending(subscription)
