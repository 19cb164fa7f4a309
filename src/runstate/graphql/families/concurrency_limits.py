"""Concurrency limits: concurrencyLimit, concurrencyLimits, their mutations, and the slots that clients acquire."""

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from runstate.core.commands import concurrency_limits as limits
from runstate.documents.access import Scope
from runstate.documents.requests import AcquireConcurrencySlots, ReleaseConcurrencySlots, RenewConcurrencyLeases
from runstate.errors import InvalidInput, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.family import Command, Delete, family
from runstate.graphql.families.mutations import mutation, payload
from runstate.graphql.published import ConcurrencyLease, ConcurrencyLimit
from runstate.graphql.types.comparisons import as_uuid
from runstate.graphql.types.derive import extends
from runstate.graphql.types.fields import Id, object_type
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

SLOTS: Final = strawberry.argument(description="The limits, the number of slots and the holder.")
LEASES: Final = strawberry.argument(description="The leases.")
Ids = (list[strawberry.ID], "Ids of the leases that existed; unknown ids are omitted.")

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
    return ceil(max(0.0, root.slot_decay_per_second * seconds))


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
