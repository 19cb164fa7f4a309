"""`runstate runs`, `flows`, `limits`: what operators ask and do."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.tree import Tree

from runstate.cli.tables import cell, show, words
from runstate.client import Client, ClientError, RefusedError
from runstate.client.client import DEFAULT_URL
from runstate.client.records import FlowRunRecord, TaskRunRecord
from runstate.client.reports import checked
from runstate.documents.states import StateType

REFUSED: Final = 3
"""Exit code if the server rejects the request."""
DURATION: Final = re.compile(r"(\d+)([smhd])")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
RUNS: Final = {
    "id": "id",
    "flow": "flow.name",
    "name": "name",
    "state": "state_name",
    "runs": "run_count",
    "started": "start_time",
    "seconds": "total_run_time_seconds",
}
FLOWS: Final = {"id": "id", "name": "name", "tags": "tags", "created": "created"}
LIMITS: Final = {
    "name": "name",
    "limit": "limit",
    "held": "active_slots",
    "waiting": "waiting_count",
    "active": "active",
    "id": "id",
}
STATES: Final = {"version": "version", "time": "timestamp", "state": "name", "by": "actor", "message": "message"}
PAST: Final = {
    "cancel": "cancelled",
    "retry": "retried",
    "delete": "deleted",
    "pause": "paused",
    "resume": "resumed",
}
NEITHER: Final = "Name the runs by ids, or by a condition such as --state failed."
ANSWER: Final = "... on OrchestrationResult { status reason state { name } } ... on Problem { code message }"
BULK: Final = """... on BulkOperation { changed done total finished hasMore cursor outcomes {
  count status reason problem changed } } ... on Problem { code message }"""

runs = typer.Typer(no_args_is_help=True, help="List, show and change flow runs.")
flows = typer.Typer(no_args_is_help=True, help="List flows.")
limits = typer.Typer(no_args_is_help=True, help="List concurrency limits.")

Url = Annotated[str, typer.Option(envvar="RUNSTATE_URL", help="URL of the server.")]
Key = Annotated[str | None, typer.Option(envvar="RUNSTATE_API_KEY", help="API key, or `user:password`.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of flow runs.")]
Id = Annotated[str, typer.Argument(help="Id of a flow run.")]
StateOption = Annotated[str | None, typer.Option("--state", help="Type or name of the state, such as failed or Late.")]
FlowOption = Annotated[str | None, typer.Option("--flow", help="Name of the flow.")]
TagOption = Annotated[str | None, typer.Option("--tag", help="Tag of the run.")]
Since = Annotated[str | None, typer.Option(help="Created in this time, such as 90s, 30m, 1h or 7d.")]
Number = Annotated[int, typer.Option("--limit", min=1, help="Number of rows.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@contextmanager
def connected(url: str, key: str | None) -> Iterator[Client]:
    """Yield a client. Print an error in one line and exit, if there is one."""
    try:
        with Client(url, key, patience=2) as client:
            yield client
    except ClientError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(REFUSED) from None


def where_of(state: str | None, flow: str | None, tag: str | None, since: str | None) -> dict[str, Any]:
    """Return the FlowRunWhere of the options. Raise BadParameter if a duration is malformed."""
    conditions: list[dict[str, Any]] = []
    if state:
        name = {"stateName": {"eq": state}}
        kind = {"stateType": {"eq": state.upper()}}
        conditions.append(kind if state.upper() in StateType.__members__ else name)
    if flow:
        conditions.append({"flow": {"name": {"eq": flow}}})
    if tag:
        conditions.append({"tags": {"all": [tag]}})
    if since:
        conditions.append({"created": {"gte": (datetime.now(UTC) - duration(since)).isoformat()}})
    return {"and": conditions} if conditions else {}


def duration(text: str) -> timedelta:
    """Return a duration such as 1h. Raise BadParameter if it is malformed."""
    found = DURATION.fullmatch(text)
    if not found:
        raise typer.BadParameter(f"{text} is not a duration such as 90s, 30m, 1h or 7d.")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


@runs.command(name="list")
def list_runs(
    state: StateOption = None,
    flow: FlowOption = None,
    tag: TagOption = None,
    since: Since = None,
    limit: Number = 50,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List flow runs, newest first."""
    with connected(url, key) as client:
        show(islice(client.flow_runs(where_of(state, flow, tag, since)), limit), RUNS)


@runs.command(name="show")
def show_run(run: Id, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show a flow run: its states with their reasons, and its task runs and subflow runs as a tree."""
    with connected(url, key) as client:
        found = client.get(FlowRunRecord, run)
        if found is None:
            raise RefusedError(f"No flow run has the id {run}.")
        if not sys.stdout.isatty():
            states = [each.model_dump(mode="json", by_alias=True) for each in client.states(run)]
            tasks = [each.model_dump(mode="json", by_alias=True) for each in tasks_of(client, run)]
            line = {**found.model_dump(mode="json", by_alias=True), "states": states, "taskRuns": tasks}
            typer.echo(orjson.dumps(line).decode())
            return
        show([found], RUNS)
        show(client.states(run), STATES)
        Console(highlight=False).print(tree(client, found, Tree(label(found, found.flow.name))))


def tasks_of(client: Client, run: str) -> Iterator[TaskRunRecord]:
    """Yield the task runs of a flow run, oldest first."""
    return client.task_runs({"flowRunId": {"eq": run}}, [{"created": "ASC"}])


def tree(client: Client, run: FlowRunRecord, node: Tree) -> Tree:
    """Add the task runs of a flow run to a tree, with the subflow runs that they represent."""
    subflows = {
        each.parent_task_run_id: each
        for each in client.flow_runs({"parentTaskRun": {"flowRunId": {"eq": run.id}}}, [{"created": "ASC"}])
    }
    for task in tasks_of(client, run.id):
        branch = node.add(label(task, task.name))
        if subflow := subflows.get(task.id):
            tree(client, subflow, branch.add(label(subflow, f"{subflow.flow.name} / {subflow.name}")))
    return node


def label(run: FlowRunRecord | TaskRunRecord, name: str) -> Any:
    """Return a line about a run: its name, its state and its time."""
    line = cell(run, "state_name")
    line.pad_right(max(0, 12 - len(line)))
    return line.append(f" {name}", style="none").append(f"  {words(run.total_run_time_seconds)} s", style="dim")


def changed(client: Client, mutation: str, kind: str, ids: list[str]) -> None:
    """Execute a mutation for each run and print what became of it. Exit with 1 if one was refused."""
    refused = False
    document = f"mutation($input: {kind}!) {{ it: {mutation}(input: $input) {{ {ANSWER} }} }}"
    for run in ids:
        answer = client.execute(document, {"input": {"id": run}})["it"]
        well = answer.get("status") == "ACCEPT"
        refused |= not well
        name = (answer.get("state") or {}).get("name", "")
        typer.echo(f"{run}  {name if well else answer.get('reason') or answer.get('message')}")
    if refused:
        raise typer.Exit(1)


def in_bulk(client: Client, mutation: str, where: dict[str, Any], verb: str, *, yes: bool) -> None:
    """Say what a mutation of many runs will do, ask, and do it."""
    document = f"""mutation($where: FlowRunWhere!, $dryRun: Boolean!, $after: String) {{
      it: {mutation}(where: $where, dryRun: $dryRun, after: $after) {{ {BULK} }} }}"""
    plan = checked(client.execute(document, {"where": where, "dryRun": True})["it"])
    for outcome in plan["outcomes"]:
        done = PAST[verb] if outcome["changed"] else f"left alone: {outcome['reason'] or outcome['problem']}"
        typer.echo(f"{outcome['count']} of {plan['total']} flow runs will be {done}", err=True)
    if not plan["total"]:
        typer.echo("No flow run meets the condition.", err=True)
        return
    if not yes:
        typer.confirm(f"{verb.capitalize()} them?", abort=True, err=True)
    total, after, finished = 0, None, False
    while not finished:
        step = checked(client.execute(document, {"where": where, "dryRun": False, "after": after})["it"])
        total, after = total + step["changed"], step["cursor"]
        finished = not step["done"] or (step["finished"] and not step["hasMore"])
    typer.echo(f"{total} flow runs were {PAST[verb]}.")


def one_or_many(client: Client, ids: list[str] | None, where: dict[str, Any], verb: str, *, yes: bool) -> None:
    """Change the runs with the ids, or those that meet the condition. Raise BadParameter without either."""
    if ids:
        changed(client, f"{verb}FlowRun", f"{verb.capitalize()}FlowRunInput", ids)
    elif where:
        in_bulk(client, f"{verb}FlowRuns", where, verb, yes=yes)
    else:
        raise typer.BadParameter(NEITHER)


def always_many(client: Client, ids: list[str] | None, where: dict[str, Any], verb: str, *, yes: bool) -> None:
    """Change runs as `one_or_many` does, those with ids together, too."""
    one_or_many(client, None, {"id": {"in": ids}} if ids else where, verb, yes=yes)


def changing(verb: str, which: str, change: Callable[..., None]) -> None:
    """Add the command that changes runs with ids, or all that meet a condition."""

    @runs.command(verb, help=f"{verb.capitalize()} {which}: those with the ids, or all that meet a condition.")
    def command(
        ids: Ids = None,
        state: StateOption = None,
        flow: FlowOption = None,
        tag: TagOption = None,
        since: Since = None,
        yes: Yes = False,  # noqa: FBT002 an option of typer
        url: Url = DEFAULT_URL,
        key: Key = None,
    ) -> None:
        with connected(url, key) as client:
            change(client, ids, where_of(state, flow, tag, since), verb, yes=yes)


changing("cancel", "flow runs", one_or_many)
changing("retry", "ended flow runs of deployments", one_or_many)
changing("delete", "flow runs", always_many)


@runs.command()
def pause(run: Id, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Pause a running flow run."""
    with connected(url, key) as client:
        changed(client, "pauseFlowRun", "PauseFlowRunInput", [run])


@runs.command()
def resume(run: Id, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Resume a paused flow run."""
    with connected(url, key) as client:
        changed(client, "resumeFlowRun", "ResumeFlowRunInput", [run])


@flows.command(name="list")
def list_flows(limit: Number = 50, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List flows by name."""
    with connected(url, key) as client:
        show(islice(client.flows(order=[{"name": "ASC"}]), limit), FLOWS)


@limits.command(name="list")
def list_limits(limit: Number = 200, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List concurrency limits by name."""
    with connected(url, key) as client:
        show(islice(client.limits(order=[{"name": "ASC"}]), limit), LIMITS)
