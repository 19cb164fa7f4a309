"""Concurrency limits and their slots: what makes, changes, takes and gives them back."""

from collections.abc import Sequence
from typing import Annotated, cast
from uuid import UUID

import strawberry

from runstate.core.commands import concurrency_limits
from runstate.documents.requests import (
    AcquireConcurrencySlots,
    CreateConcurrencyLimit,
    ReleaseConcurrencySlots,
    RenewConcurrencyLeases,
    UpdateConcurrencyLimit,
)
from runstate.errors import NotFound as NotFoundError
from runstate.errors import RunstateError
from runstate.graphql.context import Info
from runstate.graphql.families.creating import IS_NEW, DeleteResult, Given
from runstate.graphql.families.mutations import deleted, doing, proposing
from runstate.graphql.published import ConcurrencyLease, ConcurrencyLimit
from runstate.graphql.types.comparisons import as_uuid
from runstate.graphql.types.fields import Id, field, object_type
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.problems import InvalidInput, NotFound


@object_type
class CreateConcurrencyLimitPayload:
    """The limit with the name."""

    key: strawberry.Private[UUID]
    created: bool = strawberry.field(description=IS_NEW)

    @field
    async def concurrency_limit(self, info: Info) -> ConcurrencyLimit:
        """The limit."""
        return cast("ConcurrencyLimit", await info.context.load(info, ConcurrencyLimit, self.key))


@object_type
class UpdateConcurrencyLimitPayload:
    """The limit, changed."""

    key: strawberry.Private[UUID]

    @field
    async def concurrency_limit(self, info: Info) -> ConcurrencyLimit:
        """The limit."""
        return cast("ConcurrencyLimit", await info.context.load(info, ConcurrencyLimit, self.key))


@object_type
class AcquireConcurrencySlotsPayload:
    """The leases that were taken, or after how many seconds to ask again."""

    taken: strawberry.Private[Sequence[ConcurrencyLease]]
    retry_after_seconds: float | None = strawberry.field(
        description="A limit is full and nothing was taken: after how many seconds to ask again."
    )

    @field
    def leases(self) -> list[ConcurrencyLease]:
        """A lease for each limit that exists and is active; empty: nothing was taken, or nothing limits."""
        return list(self.taken)


@object_type
class LeasesPayload:
    """Which of the leases were there."""

    lease_ids: list[strawberry.ID] = strawberry.field(description="Ids of those that were; the others are gone.")


CreateConcurrencyLimitResult = Annotated[
    CreateConcurrencyLimitPayload | InvalidInput,
    strawberry.union("CreateConcurrencyLimitResult", description="The limit, or what is wrong with the input."),
]
UpdateConcurrencyLimitResult = Annotated[
    UpdateConcurrencyLimitPayload | NotFound | InvalidInput,
    strawberry.union("UpdateConcurrencyLimitResult", description="The limit, or what is wrong with the input."),
]
AcquireConcurrencySlotsResult = Annotated[
    AcquireConcurrencySlotsPayload | NotFound | InvalidInput,
    strawberry.union("AcquireConcurrencySlotsResult", description="What was taken, or what is wrong with the input."),
]
LeasesResult = Annotated[
    LeasesPayload | InvalidInput,
    strawberry.union("LeasesResult", description="Which leases were there, or what is wrong with the input."),
]
ResetConcurrencyLimitResult = Annotated[
    UpdateConcurrencyLimitPayload | NotFound,
    strawberry.union("ResetConcurrencyLimitResult", description="The limit, or that there is none."),
]


def _leases(ids: Sequence[UUID]) -> LeasesPayload:
    return LeasesPayload(lease_ids=[strawberry.ID(str(each)) for each in ids])


@strawberry.type
class Mutation:
    """Limits and slots."""

    @doing
    async def create_concurrency_limit(
        self, info: Info, input: Annotated[Input[CreateConcurrencyLimit], Given]
    ) -> CreateConcurrencyLimitResult:
        """Create a limit; one that has the name already gets what is given."""
        outcome = await concurrency_limits.create_limit(info.context.batcher, input.checked())
        if isinstance(outcome, RunstateError):
            raise outcome
        key, created = outcome
        return CreateConcurrencyLimitPayload(key=key, created=created)

    @doing
    async def update_concurrency_limit(
        self, info: Info, input: Annotated[Input[UpdateConcurrencyLimit], Given]
    ) -> UpdateConcurrencyLimitResult:
        """Change a limit. Fewer slots than are held stop new entries only."""
        outcome = await concurrency_limits.update_limit(info.context.batcher, input.checked())
        if isinstance(outcome, RunstateError):
            raise outcome
        return UpdateConcurrencyLimitPayload(key=outcome)

    @doing
    async def delete_concurrency_limit(self, info: Info, id: Id) -> DeleteResult:
        """Delete a limit with its leases."""
        return await deleted(info, id, concurrency_limits.delete_limit)

    @doing
    async def reset_concurrency_limit(self, info: Info, id: Id) -> ResetConcurrencyLimitResult:
        """Take back all slots of a limit, whoever holds them."""
        known = as_uuid(id)
        if known is None or not await concurrency_limits.reset_limit(info.context.batcher, known):
            raise NotFoundError(id)
        return UpdateConcurrencyLimitPayload(key=known)

    @proposing
    async def acquire_concurrency_slots(
        self, info: Info, input: Annotated[Input[AcquireConcurrencySlots], Given]
    ) -> AcquireConcurrencySlotsResult:
        """Take slots of many limits at once: all, or none and when to ask again."""
        outcome = await concurrency_limits.acquire_concurrency_slots(info.context.batcher, input.checked())
        if isinstance(outcome, RunstateError):
            raise outcome
        return AcquireConcurrencySlotsPayload(taken=outcome.leases, retry_after_seconds=outcome.retry_after_seconds)

    @proposing
    async def release_concurrency_slots(
        self, info: Info, input: Annotated[Input[ReleaseConcurrencySlots], Given]
    ) -> LeasesResult:
        """Give back leases. One that is gone was given back or taken back already: nothing is given back twice."""
        return _leases(await concurrency_limits.release_concurrency_slots(info.context.batcher, input.checked()))

    @proposing
    async def renew_concurrency_leases(
        self, info: Info, input: Annotated[Input[RenewConcurrencyLeases], Given]
    ) -> LeasesResult:
        """Have leases last longer. Slots of a limit with decay free themselves all the same."""
        return _leases(await concurrency_limits.renew_concurrency_leases(info.context.batcher, input.checked()))
