"""Claims of workers: claimFlowRuns, renewClaims, releaseClaims, workAvailable, and the runs that workers hold."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.core.commands import claims
from runstate.database.queries.claimable import HOLDING
from runstate.documents.access import Scope
from runstate.documents.pools import ClaimFlowRuns, ReleaseClaims, RenewClaims
from runstate.errors import InvalidInput, NotFound
from runstate.feed import WorkAvailable
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import actor, mutation
from runstate.graphql.pagination.connection import Connection
from runstate.graphql.pagination.keyset import PageArguments
from runstate.graphql.pagination.selection import every
from runstate.graphql.published import FlowRun, RunClaim, WorkPool, WorkQueue
from runstate.graphql.types.conditions import is_set
from runstate.graphql.types.derive import extends, register_type
from runstate.graphql.types.fields import object_type, subscription
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.orders import Key

register_type(WorkAvailable)
CLAIM = strawberry.argument(description="Pool, worker and number of runs.")
CLAIMS = strawberry.argument(description="The claims.")
Pool = Annotated[str, strawberry.argument(description="Name of the work pool.")]
Queues = Annotated[
    list[str] | None, strawberry.argument(description="Names of queues; by default all queues of the pool.")
]
First = Annotated[int | None, strawberry.argument(description="The number of runs from the start.")]
After = Annotated[str | None, strawberry.argument(description="Only runs after this cursor.")]
Last = Annotated[int | None, strawberry.argument(description="The number of runs from the end.")]
Before = Annotated[str | None, strawberry.argument(description="Only runs before this cursor.")]


@object_type
class ClaimFlowRunsPayload:
    """Claimed runs."""

    claims: list[RunClaim] = strawberry.field(
        description="By priority of the queue, then by scheduled time, then by id; empty if nothing is due or free."
    )
    next_due: datetime | None = strawberry.field(
        description="Time at which the next run becomes due; null if none is known."
    )
    replayed: bool = strawberry.field(
        description="True if an earlier request with the idempotency key made the claims."
    )


@object_type
class RenewClaimsPayload:
    """Extended claims."""

    renewed: list[RunClaim] = strawberry.field(description="Claims that were extended.")
    lost_ids: list[strawberry.ID] = strawberry.field(
        description="Ids of claims that have ended: the worker must stop these runs."
    )
    cancelling: list[FlowRun] = strawberry.field(description="Runs of these claims that are CANCELLING: stop them.")


@object_type
class ReleaseClaimsPayload:
    """Ended claims."""

    released_ids: list[strawberry.ID] = strawberry.field(description="Ids of claims that were ended now.")
    missing_ids: list[strawberry.ID] = strawberry.field(
        description="Ids of claims that had ended before, or are unknown."
    )


@extends(FlowRun, needs={"claim_id"})
async def claim(root: strawberry.Parent[FlowRun], info: Info) -> RunClaim | None:
    """The claim on it; null if no worker holds it."""
    return await info.context.load(info, RunClaim, root.claim_id)


class LongestFirst:
    """The order of runs by the time at which they entered their state."""

    @staticmethod
    def order_key() -> Key:
        """Return the column to sort by."""
        return Key("state_timestamp")


@extends(WorkPool, needs=())
async def slot_holders(
    root: strawberry.Parent[WorkPool],
    info: Info,
    first: First = UNSET,
    after: After = UNSET,
    last: Last = UNSET,
    before: Before = UNSET,
) -> Connection[FlowRun]:
    """Its runs that are PENDING or RUNNING, those in their state for the longest time first."""

    def holds(table: sa.FromClause) -> sa.ColumnElement[bool]:
        mine = sa.select(WorkQueue.id).where(WorkQueue.work_pool_id == root.id)
        return table.c.work_queue_id.in_(mine) & table.c.state_type.in_(HOLDING)

    order: Any = [LongestFirst()]
    page = PageArguments[Any](order_by=order, first=first, after=after, last=last, before=before, conditions=(holds,))
    return info.context.search(info, FlowRun, page, of=root.id)


def _ids(claims: Sequence[UUID]) -> list[strawberry.ID]:
    return [strawberry.ID(str(each)) for each in claims]


async def runs(info: Info, ids: Sequence[UUID]) -> list[Any]:
    """Return flow runs by id."""
    return list(await info.context.rows(FlowRun, ids, every(FlowRun))) if ids else []


@strawberry.type
class Mutation:
    """Claims."""

    @mutation(Scope.PROPOSE, InvalidInput, NotFound)
    async def claim_flow_runs(self, info: Info, input: Annotated[Input[ClaimFlowRuns], CLAIM]) -> ClaimFlowRunsPayload:
        """Claim due runs: each run goes from SCHEDULED to PENDING by the rules, and gets a lease, in one transaction.

        A run is never given to two workers.
        """
        made = await claims.claim_flow_runs(info.context.batcher, input.checked(), **actor(info))
        return ClaimFlowRunsPayload(claims=list(made.claims), next_due=made.next_due, replayed=made.replayed)

    @mutation(Scope.PROPOSE, InvalidInput)
    async def renew_claims(self, info: Info, input: Annotated[Input[RenewClaims], CLAIMS]) -> RenewClaimsPayload:
        """Extend leases. The answer also tells which have ended, and which runs must be cancelled."""
        done = await claims.renew_claims(info.context.commands, input.checked())
        return RenewClaimsPayload(
            renewed=list(done.renewed), lost_ids=_ids(done.lost), cancelling=await runs(info, done.cancelling)
        )

    @mutation(Scope.PROPOSE, InvalidInput)
    async def release_claims(self, info: Info, input: Annotated[Input[ReleaseClaims], CLAIMS]) -> ReleaseClaimsPayload:
        """End claims: return runs that were not started, or report that they could not be started."""
        done = await claims.release_claims(info.context.commands, input.checked(), **actor(info))
        return ReleaseClaimsPayload(released_ids=_ids(done.released), missing_ids=_ids(done.missing))


@strawberry.type
class Subscription:
    """Runs that can be claimed."""

    @subscription
    async def work_available(
        self, info: Info, work_pool: Pool, work_queues: Queues = UNSET
    ) -> AsyncGenerator[WorkAvailable, None]:
        """Wake the workers of a pool: at once if runs can be claimed, and whenever a run becomes claimable.

        A run becomes claimable if it is due, a slot is freed, or its queue is resumed. An event is sent at least every
        30 seconds. Two workers are woken for each run, and others if it is not claimed. Only `claimFlowRuns` decides.
        """
        queues = work_queues if is_set(work_queues) else None
        return info.context.feed.work.follow(work_pool, queues)  # type: ignore[no-any-return]
