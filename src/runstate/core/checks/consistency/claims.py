"""Claims agree with the runs that workers hold. Slots of pools and queues have no counters: they are counted."""

from typing import Any, Final

import sqlalchemy as sa

from runstate.core.checks.check import Check
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import FlowRun, RunClaim, Worker, WorkQueue

Ids = sa.Select[Any]


def unknown_to_the_run() -> Ids:
    """Select claims that their run does not name."""
    ours = RunClaim.flow_run_id == FlowRun.id
    return (
        sa.select(RunClaim.id)
        .outerjoin_from(RunClaim, FlowRun, ours)
        .where(FlowRun.claim_id.is_distinct_from(RunClaim.id))
    )


def without_claim() -> Ids:
    """Select runs that name a claim that does not exist."""
    there = sa.exists().where(RunClaim.id == FlowRun.claim_id, RunClaim.flow_run_id == FlowRun.id)
    return sa.select(FlowRun.id).where(FlowRun.claim_id.is_not(None), ~there)


def of_runs_without_process() -> Ids:
    """Select claims of runs that have left the process of their worker."""
    waits = (FlowRun.state_type == StateType.SCHEDULED) & (FlowRun.state_name != "AwaitingRetry")
    left = sa.func.coalesce(FlowRun.state_type.in_(FINAL_TYPES) | waits, sa.true())
    return sa.select(RunClaim.id).join(FlowRun, FlowRun.id == RunClaim.flow_run_id).where(left)


def of_other_pools() -> Ids:
    """Select claims of workers on runs of another pool's queue."""
    queue = RunClaim.work_queue_id == WorkQueue.id
    pools = sa.select(RunClaim.id).join(WorkQueue, queue).join(Worker, Worker.id == RunClaim.worker_id)
    return pools.where(WorkQueue.work_pool_id != Worker.work_pool_id)


def miscounted_claims() -> Ids:
    """Select runs with more claims that expired than claims that were made."""
    return sa.select(FlowRun.id).where((FlowRun.claim_count < FlowRun.expired_claims) | (FlowRun.expired_claims < 0))


CHECKS: Final = (
    Check("Claims that their flow run does not name", unknown_to_the_run()),
    Check("Flow runs that name an unknown claim", without_claim()),
    Check("Claims of flow runs without a process", of_runs_without_process()),
    Check("Claims of workers of another pool", of_other_pools()),
    Check("Flow runs whose expired claims exceed their claims", miscounted_claims()),
)
