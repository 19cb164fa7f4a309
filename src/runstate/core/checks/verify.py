"""Consistency of a database: counters and leases, runs and states, states and the log."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from runstate.core.rules.concurrency import HOLDING, HOLDING_TASK
from runstate.database import Database
from runstate.database.queries import tallies
from runstate.database.queries import verify as sql
from runstate.rows import FlowRun, FlowRunState, TaskRun, TaskRunState

NAMED: Final = 10


async def verify(database: Database, now: datetime) -> list[str]:
    """Return a sentence for each kind of contradiction, with the number of cases and their first ids.

    All checks read one snapshot, so others may write meanwhile. An empty list means that nothing was lost, half-written
    or written twice.
    """
    findings = []
    async with sql.snapshot(database) as connection:
        for what, ids in questions(await sql.logged_since(connection), now).items():
            count, named = await sql.first(connection, ids, NAMED)
            if count:
                findings.append(f"{what} ({count}): {', '.join(named)}{' …' if count > NAMED else '.'}")
    return findings


def questions(logged_since: datetime | None, now: datetime) -> Mapping[str, sql.Ids]:
    """Return the checks, by the description of what they find."""
    return {
        **_of_runs("Flow runs", FlowRun, FlowRunState),
        **_of_runs("Task runs", TaskRun, TaskRunState),
        **_of_states("States of flow runs", FlowRunState, logged_since),
        **_of_states("States of task runs", TaskRunState, logged_since),
        "Limits that count other slots than their leases hold": sql.miscounted_slots(),
        "Limits with decay that are drained at another time than their leases": sql.drained_otherwise(now),
        "Leases without an end of runs that do not exist": sql.of_nobody(),
        "Leases of flow runs that have left PENDING and RUNNING": sql.not_given_back(FlowRun, HOLDING),
        "Leases of task runs that have left RUNNING": sql.not_given_back(TaskRun, HOLDING_TASK),
        "Runs that hold one limit twice": sql.taken_twice(),
    }


def _of_runs(runs: str, run: sql.Run, state: sql.State) -> Mapping[str, sql.Ids]:
    return {
        f"{runs} that are not in the state of their version": sql.not_in_last_state(run, state),
        f"{runs} whose version is not that of their newest state": sql.miscounted_states(run, state),
        f"{runs} that went back in time": sql.going_back_in_time(state),
        f"{runs} whose end time does not go with their state": sql.ended_otherwise(run),
        f"{runs} whose run time is negative": sql.negative_run_times(run),
        f"{runs} that are behind the log": sql.logged_ahead(run),
        f"{runs} of which another number is added up than there is": tallies.miscounted(run),
    }


def _of_states(states: str, state: sql.State, logged_since: datetime | None) -> Mapping[str, sql.Ids]:
    return {
        f"{states} that the log lacks": sql.not_logged(state, logged_since),
        f"{states} of which the log says something else": sql.logged_otherwise(state),
    }
