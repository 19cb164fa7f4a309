"""Following runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

from runstate.client.connection import Connection
from runstate.client.errors import RefusedError
from runstate.client.records import Batch
from runstate.client.reports import READ
from runstate.client.sockets import Entry, Session, following, socket_address
from runstate.client.states import State

TRANSITIONS: Final = f"""subscription($where: TransitionWhere, $after: String) {{
  transitions(where: $where, after: $after) {{ {Batch.selection()} }} }}"""
ENDED: Final = """subscription($run: RunRef!, $afterVersion: Int) {
  runTransitions(run: $run, afterVersion: $afterVersion, untilFinal: true) { version stateType } }"""
KIND: Final = "query($id: ID!) { node(id: $id) { __typename ... on Run { version stateType } } }"
FINAL: Final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Batches:
    """The subscription to transitions. The position is a cursor."""

    document = TRANSITIONS

    def __init__(self, where: Mapping[str, Any] | None, after: str | None) -> None:
        self.where, self.after = where, after

    async def variables(self, _: Session) -> dict[str, Any]:
        """Return the filter and the cursor."""
        return {"where": self.where, "after": self.after}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the batch of an event, unless it is empty."""
        batch = data["transitions"]
        self.after = batch["cursor"]
        return [batch] if batch["transitions"] else []

    def resume(self, cursor: str) -> None:
        """Set the position to a cursor."""
        self.after = cursor


class Ending:
    """The subscription to one run until it ends. The position is a version."""

    document = ENDED

    def __init__(self, run: str) -> None:
        self.run, self.version = run, 0

    async def variables(self, session: Session) -> dict[str, Any]:
        """Return the reference to the run, whose kind is looked up, and the version."""
        node = (await session.ask(KIND, id=self.run))["node"]
        if node is None or "version" not in node:
            raise RefusedError(f"No run has the id {self.run}.")
        if node["stateType"] not in FINAL:
            # A retry of a run that had ended before is awaited, too.
            self.version = max(self.version, node["version"])
        ref = {"flowRunId" if node["__typename"] == "FlowRun" else "taskRunId": self.run}
        return {"run": ref, "afterVersion": self.version}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the transition of an event."""
        entry = data["runTransitions"]
        self.version = entry["version"]
        return [entry]

    def resume(self, cursor: str) -> None:
        """Set the position to a version."""
        self.version = int(cursor)


async def batches(
    connection: Connection, where: Mapping[str, Any] | None, after: str | None
) -> AsyncGenerator[Batch, None]:
    """Yield batches of transitions, each transition once; reconnect when the connection is lost."""
    address = socket_address(connection.address)
    async with aclosing(following(address, Batches(where, after), lambda _: None, connection.key)) as found:
        async for batch in found:
            yield Batch.model_validate(batch)


async def ended(connection: Connection, run: str) -> State:
    """Wait until a run ends; return its final state. Raise RefusedError if it does not exist."""
    address = socket_address(connection.address)
    async for _ in following(address, Ending(run), lambda _: None, connection.key):
        pass
    found = (await connection.execute(READ, {"id": run}))["it"]
    if not found:
        raise RefusedError(f"The run {run} was deleted.")
    return State.model_validate(found["state"])
