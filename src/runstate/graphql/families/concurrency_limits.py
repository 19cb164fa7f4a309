"""Concurrency limits: concurrencyLimit, concurrencyLimits, their mutations, and the slots that clients acquire."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from math import ceil
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from runstate.core.commands import concurrency_limits as limits
from runstate.documents.access import Scope
from runstate.documents.requests import AcquireConcurrencySlots, ReleaseConcurrencySlots, RenewConcurrencyLeases
from runstate.errors import BadUserInput, InvalidInput, NotFound
from runstate.feed import FreeSlots
from runstate.graphql.context import Info
from runstate.graphql.families.family import Command, Delete, family
from runstate.graphql.families.mutations import mutation, payload
from runstate.graphql.pagination.keyset import PageArguments
from runstate.graphql.published import ConcurrencyLease, ConcurrencyLimit, ConcurrencyWaiter, FlowRun, Run, TaskRun
from runstate.graphql.types.conditions import as_uuid
from runstate.graphql.types.derive import ReferenceLookup, extends, register_type
from runstate.graphql.types.fields import Id, object_type, subscription
from runstate.graphql.types.filters import HasMany
from runstate.graphql.types.inputs import Input

FAMILY = family(
    ConcurrencyLimit,
    scope=Scope.ADMIN,
    lookup="name",
    create=Command(
        limits.create_limit,
        limits.CreateConcurrencyLimit,
        description="Create a concurrency limit, or update the one with this name.",
    ),
    update=Command(limits.update_limit, limits.UpdateConcurrencyLimit, (InvalidInput, NotFound)),
    delete=Delete(
        limits.delete_limit,
        "Delete a concurrency limit with its leases. The limit of a deployment is an InvalidInput; use "
        "`updateDeployment` to remove it.",
        (InvalidInput, NotFound),
        "DeleteProtectableResult",
    ),
)

MOST_NAMES: Final = 100
RUN: Final = ReferenceLookup(FlowRun, "run_id", (TaskRun,))
Names = Annotated[
    list[str], strawberry.argument(description=f"Names of the limits, from 1 to {MOST_NAMES}: `tag:db`, for example.")
]
SLOTS: Final = strawberry.argument(description="The limits, the number of slots and the holder.")
LEASES: Final = strawberry.argument(description="The leases.")
Ids = (list[strawberry.ID], "Ids of the leases that existed; unknown ids are omitted.")

register_type(FreeSlots)

ReleaseConcurrencySlotsPayload = payload("ReleaseConcurrencySlotsPayload", "The released leases.", lease_ids=Ids)
RenewConcurrencyLeasesPayload = payload("RenewConcurrencyLeasesPayload", "The renewed leases.", lease_ids=Ids)
ResetConcurrencyLimitPayload = payload(
    "ResetConcurrencyLimitPayload", "The reset limit.", concurrency_limit=(ConcurrencyLimit, "The limit as written.")
)


@object_type
class AcquireConcurrencySlotsPayload:
    """The acquired slots, or the time to wait for them."""

    leases: list[ConcurrencyLease] = strawberry.field(
        description="A lease for each limit that exists and is active; empty if a limit is full."
    )
    retry_after_seconds: float | None = strawberry.field(
        description="Seconds to wait before the next attempt; null unless a limit is full."
    )


@extends(ConcurrencyLimit, needs={"occupied", "slot_decay_per_second", "drained"})
def active_slots(root: strawberry.Parent[ConcurrencyLimit], info: Info) -> int:
    """Number of slots that are held now."""
    if not root.slot_decay_per_second:
        return root.occupied
    seconds = (root.drained - info.context.now).total_seconds() if root.drained else 0.0
    # A slot that is partly occupied cannot be acquired.
    return ceil(max(0.0, root.slot_decay_per_second * seconds))


@extends(ConcurrencyLimit, needs=(), count=HasMany(ConcurrencyWaiter, "limit_id"))
async def waiting_count(root: strawberry.Parent[ConcurrencyLimit], info: Info) -> int:
    """Number of runs that wait for a slot."""
    waiting = info.context.search(info, ConcurrencyWaiter, PageArguments(), "limit_id", root.id)
    return await waiting.total_count()


@extends(ConcurrencyWaiter, name="run", needs={"run_id"}, lookup=RUN)
async def waiting_run(root: strawberry.Parent[ConcurrencyWaiter], info: Info) -> Run | None:
    """The run that waits; null once it is deleted."""
    return await _run(info, root.run_id)


@extends(ConcurrencyLease, name="run", needs={"run_id"}, lookup=RUN)
async def holding_run(root: strawberry.Parent[ConcurrencyLease], info: Info) -> Run | None:
    """The run that holds the slots; null if no run holds them, and once it is deleted."""
    return await _run(info, root.run_id)


async def _run(info: Info, run_id: UUID | None) -> Run | None:
    kinds: tuple[type[Run], ...] = (FlowRun, TaskRun)
    # A lease does not record the kind of its run.
    flow_run, task_run = await asyncio.gather(*(info.context.load(info, kind, run_id) for kind in kinds))
    return flow_run or task_run


@extends(ConcurrencyLease, name="flow_run", needs={"run_id"})
async def flow_run_of_lease(root: strawberry.Parent[ConcurrencyLease], info: Info) -> FlowRun | None:
    """The flow run that holds the slots, or the flow run of the task run that does; null without a flow run."""
    task_run = await info.context.row(TaskRun, root.run_id, frozenset({"flow_run_id"}))
    return await info.context.load(info, FlowRun, task_run.flow_run_id if task_run else root.run_id)


def _ids(leases: Sequence[UUID]) -> list[strawberry.ID]:
    return [strawberry.ID(str(each)) for each in leases]


@strawberry.type
class Mutation:
    """Slots of concurrency limits."""

    @mutation(Scope.ADMIN, NotFound, returns=ResetConcurrencyLimitPayload)
    async def reset_concurrency_limit(self, info: Info, id: Id) -> Any:
        """Release all slots of a limit, regardless of the holder."""
        known = as_uuid(id)
        if known is None:
            raise NotFound(id)
        return ResetConcurrencyLimitPayload(concurrency_limit=await limits.reset_limit(info.context.commands, known))

    @mutation(Scope.PROPOSE, NotFound, InvalidInput)
    async def acquire_concurrency_slots(
        self, info: Info, input: Annotated[Input[AcquireConcurrencySlots], SLOTS]
    ) -> AcquireConcurrencySlotsPayload:
        """Acquire slots of several limits atomically.

        If any limit is full, no slot is acquired and `retryAfterSeconds` is set.
        """
        acquired = await limits.acquire_concurrency_slots(info.context.commands, input.checked())
        return AcquireConcurrencySlotsPayload(
            leases=list(acquired.leases), retry_after_seconds=acquired.retry_after_seconds
        )

    @mutation(Scope.PROPOSE, InvalidInput, returns=ReleaseConcurrencySlotsPayload)
    async def release_concurrency_slots(
        self, info: Info, input: Annotated[Input[ReleaseConcurrencySlots], LEASES]
    ) -> Any:
        """Release leases. Unknown or already released ids are ignored."""
        released: Any = await limits.release_concurrency_slots(info.context.commands, input.checked())
        return ReleaseConcurrencySlotsPayload(lease_ids=_ids(released))

    @mutation(Scope.PROPOSE, InvalidInput, returns=RenewConcurrencyLeasesPayload)
    async def renew_concurrency_leases(
        self, info: Info, input: Annotated[Input[RenewConcurrencyLeases], LEASES]
    ) -> Any:
        """Renew leases: change the time at which they expire.

        Slots of a rate limit are still freed at its rate. Slots that a run holds by its state are released when it
        leaves that state, even if their lease was renewed.
        """
        renewed: Any = await limits.renew_concurrency_leases(info.context.commands, input.checked())
        return RenewConcurrencyLeasesPayload(lease_ids=_ids(renewed))


@strawberry.type
class Subscription:
    """Slots that become free."""

    @subscription
    async def slots_freed(self, info: Info, names: Names) -> AsyncGenerator[list[FreeSlots], None]:
        """Limits with free slots: those that have some now, and then each limit when it has some after a change.

        This wakes clients that wait: they propose RUNNING, or acquire slots, again. Nothing is reserved for them, and
        the first to wait is not the first to be served. Two of many waiting clients are woken for each slot, and others
        if it stays free. Notifications can be late, so clients ask again after `retryAfterSeconds`, too.
        """
        if not 1 <= len(names) <= MOST_NAMES:
            raise BadUserInput(f"`names` takes from 1 to {MOST_NAMES} names.")
        return info.context.feed.slots.follow(names)  # type: ignore[no-any-return]
