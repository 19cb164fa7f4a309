"""Heartbeats of clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from runstate.core.batch.batcher import Batcher
from runstate.core.commands.proposals import referred
from runstate.database.queries.heartbeats import monitored_runs
from runstate.documents import requests
from runstate.documents.states import RunKind, StateType


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeartbeat:
    """The answer to the heartbeat of a run: the state that it is in now."""

    run_id: UUID
    """Id of the run."""
    state_type: StateType | None
    """Type of the current state. CANCELLING or PAUSED: the client is asked to stop. Null: the run does not exist."""
    state_name: str | None
    """Name of the current state."""
    version: int | None
    """Version of the current state."""


async def beat(batcher: Batcher, runs: Sequence[requests.RunRef]) -> list[RunHeartbeat]:
    """Note that the clients of runs are alive, and return the states of the runs in order. No state is written."""
    given = [referred(run) for run in runs]
    flow_runs = {run_id for kind, run_id in given if kind is RunKind.FLOW_RUN}
    task_runs = {run_id for kind, run_id in given if kind is RunKind.TASK_RUN}
    async with batcher.database.read() as connection:
        found = {(each.kind, each.id): each for each in await monitored_runs(connection, flow_runs, task_runs)}
    # Noted in memory and written together: a row for each heartbeat would be most of the writes of a server.
    batcher.heartbeats.note({each.id: each.version for each in found.values() if each.is_monitored})
    answers = []
    for kind, run_id in given:
        run = found.get((kind.name, run_id))
        state = (run.state_type, run.state_name, run.version) if run else (None, None, None)
        answers.append(RunHeartbeat(run_id=run_id, state_type=state[0], state_name=state[1], version=state[2]))
    return answers
