"""Transitions: pages and the cursor of the log, and subscriptions to transitions and runs."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, TypeVar
from uuid import UUID

import strawberry
from strawberry import UNSET

from runstate.documents.requests import RunRef
from runstate.documents.states import RunKind, StateType
from runstate.errors import BadUserInput
from runstate.feed import (
    EVERYTHING,
    PAGE_SIZE,
    Feed,
    Hub,
    LogFilter,
    Page,
    RunHistoryPage,
    TagFilter,
    TransitionFilter,
    follow,
    follow_run,
    read_log,
)
from runstate.graphql.context import Info
from runstate.graphql.pagination.sizes import checked_size
from runstate.graphql.published import FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState, Transition
from runstate.graphql.types.comparisons import TagsComparison
from runstate.graphql.types.conditions import Conditions, as_uuid, is_set, member
from runstate.graphql.types.derive import extends
from runstate.graphql.types.fields import Id, input_type, object_type, query, subscription
from runstate.graphql.types.inputs import Input

T = TypeVar("T")
R = TypeVar("R", FlowRun, TaskRun)

MOST_WANTED = 1_000
"""Largest number of values in one member of a condition."""


@input_type()
class TransitionWhere(Conditions):
    """Conditions on transitions. All must hold; an empty list matches nothing, and null is rejected."""

    may_be_empty = True

    run_kind: RunKind | None = member("Kind of the run.")
    run_ids: list[strawberry.ID] | None = member("The run is one of these.")
    flow_run_ids: list[strawberry.ID] | None = member("The run is one of these flow runs, or a task run of one.")
    flow_ids: list[strawberry.ID] | None = member("The run belongs to one of these flows.")
    deployment_ids: list[strawberry.ID] | None = member("The run belongs to one of these deployments.")
    state_types: list[StateType] | None = member("The state entered has one of these types.")
    state_names: list[str] | None = member("The state entered has one of these names.")
    tags: TagsComparison | None = member("Conditions on the tags of the run at the time of the transition.")

    def filter(self) -> TransitionFilter:
        """Return the conditions as a filter of the feed."""
        return TransitionFilter(
            run_kind=self.run_kind or None,
            run_ids=_ids(self.run_ids),
            flow_run_ids=_ids(self.flow_run_ids),
            flow_ids=_ids(self.flow_ids),
            deployment_ids=_ids(self.deployment_ids),
            state_types=_some(self.state_types),
            state_names=_some(self.state_names),
            tags=_tags(self.tags) if is_set(self.tags) else None,
        )


def _some(values: list[T] | None) -> frozenset[T] | None:
    if not is_set(values):
        return None
    if len(values or ()) > MOST_WANTED:
        raise BadUserInput(f"A list in a condition has at most {MOST_WANTED} values.")
    return frozenset(values or ())


def _ids(values: list[strawberry.ID] | None) -> Any:
    some = _some(values)
    return None if some is None else frozenset(known for value in some if (known := as_uuid(value)))


def _tags(tags: Any) -> TagFilter:
    return TagFilter(
        all=_some(tags.all) or frozenset(),
        any=_some(tags.any),
        none=_some(tags.none) or frozenset(),
        empty=tags.is_empty if is_set(tags.is_empty) else None,
    )


@object_type
class TransitionBatch:
    """Transitions, in version order for each run, and the cursor after them."""

    cursor: str = strawberry.field(description="Cursor to continue after this batch, on any server.")
    transitions: list[Transition] = strawberry.field(description="At most 100; empty if there were none for a while.")
    has_more: bool = strawberry.field(description="True if more transitions are in the log after the cursor.")
    shared: strawberry.Private[Any] = None
    """Equal for batches whose fields are all equal."""


@extends(Transition)
async def state(root: strawberry.Parent[Transition], info: Info) -> State | None:
    """The state that was entered; null once it is deleted."""
    kind = FlowRunState if root.run_kind is RunKind.FLOW_RUN else TaskRunState
    return await info.context.load(info, kind, root.state_id)


@extends(Transition)
async def run(root: strawberry.Parent[Transition], info: Info) -> Run | None:
    """The run as it is now; null once it is deleted."""
    return await info.context.load(info, FlowRun if root.run_kind is RunKind.FLOW_RUN else TaskRun, root.run_id)


Which = Annotated[TransitionWhere | None, strawberry.argument(description="By default all transitions.")]
From = Annotated[
    str | None, strawberry.argument(description="Only transitions after this cursor; by default all in the log.")
]
First = Annotated[int, strawberry.argument(description=f"Maximum number of transitions, from 1 to {PAGE_SIZE}.")]


@strawberry.type
class Query:
    """The log of transitions, page by page, and its end."""

    @query
    async def transitions(
        self, info: Info, after: From = UNSET, first: First = PAGE_SIZE, where: Which = UNSET
    ) -> TransitionBatch:
        """Committed transitions that match the conditions, oldest first, each exactly once along a chain of cursors.

        The cursors are those of the subscription. An invalid cursor is an error with the code INVALID_INPUT or
        CURSOR_EXPIRED.
        """
        size, start = checked_size(first, PAGE_SIZE), after if is_set(after) else None
        return _batch(info, await read_log(_hub(info), _filter(where), start, size))

    @query
    async def transition_cursor(self, info: Info) -> str:
        """The cursor at the end of the log of transitions.

        To miss nothing, query it before reading objects, and then subscribe with it as `after`.
        """
        return await _hub(info).end_cursor()


After = Annotated[
    str | None, strawberry.argument(description="Only transitions after this cursor; by default only new ones.")
]
AfterVersion = Annotated[int | None, strawberry.argument(description="Only later versions; by default all.")]
UntilFinal = Annotated[bool, strawberry.argument(description="True to complete once the run is in a final state.")]
Reference = Annotated[Input[RunRef], strawberry.argument(description="The run.")]


@strawberry.type
class Subscription:
    """Transitions, and runs as they change."""

    @subscription
    async def transitions(
        self, info: Info, where: Which = UNSET, after: After = UNSET
    ) -> AsyncGenerator[TransitionBatch, None]:
        """Committed transitions that match the conditions, each exactly once along a chain of cursors.

        Transitions of one run are in version order. By default only new transitions are sent; with `after`, first
        those since the cursor. The first batch is sent at once and may be empty. Without transitions, an empty batch
        is sent at least every 30 seconds, so that cursors stay valid. An invalid cursor is an error with the code
        INVALID_INPUT or CURSOR_EXPIRED. The deletion of a run is not a transition.
        """
        return _batches(info, await follow(_hub(info), _filter(where), after if is_set(after) else None))

    @subscription
    async def run_transitions(
        self, info: Info, run: Reference, after_version: AfterVersion = UNSET, *, until_final: UntilFinal = False
    ) -> AsyncGenerator[Transition, None]:
        """The transitions of one run from its first version on, one at a time and without gaps.

        The subscription completes once the run is deleted.
        """
        kind, key = _referred(run)
        version = max(after_version or 0, 0)
        return _singly(info, await follow_run(_feed(info), kind, key, version, until_final=until_final))

    @subscription
    async def flow_run(self, info: Info, id: Id) -> AsyncGenerator[FlowRun | None, None]:
        """The flow run with an id: now, and after each of its transitions; null once it is deleted."""
        return await _live(info, RunKind.FLOW_RUN, FlowRun, id)

    @subscription
    async def task_run(self, info: Info, id: Id) -> AsyncGenerator[TaskRun | None, None]:
        """The task run with an id: now, and after each of its transitions; null once it is deleted."""
        return await _live(info, RunKind.TASK_RUN, TaskRun, id)


def _feed(info: Info) -> Feed:
    feed: Feed = info.context.feed
    return feed


def _hub(info: Info) -> Hub[Any]:
    return _feed(info).transitions


def _filter(where: TransitionWhere | None) -> LogFilter[Any]:
    return where.filter() if where else EVERYTHING


def _batch(info: Info, page: Page[Any]) -> TransitionBatch:
    cursor, entries = _hub(info).reader.encode(page.cursor), page.entries
    shared = cursor, page.complete, tuple(each.seq for each in entries)
    return TransitionBatch(cursor=cursor, transitions=entries, has_more=not page.complete, shared=shared)


def _referred(run: Any) -> tuple[RunKind, Any]:
    ref = run.checked()
    return (RunKind.FLOW_RUN, ref.flow_run_id) if ref.flow_run_id else (RunKind.TASK_RUN, ref.task_run_id)


async def _batches(info: Info, pages: AsyncGenerator[Page[Any], None]) -> AsyncGenerator[TransitionBatch, None]:
    async with aclosing(pages):
        async for page in pages:
            # Each event reads anew, at its own time.
            info.context.forget()
            yield _batch(info, page)


async def _singly(info: Info, pieces: AsyncGenerator[RunHistoryPage, None]) -> AsyncGenerator[Transition, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            for each in piece.transitions:
                # Each event reads anew, at its own time.
                info.context.forget()
                yield each


async def _live(info: Info, kind: RunKind, row: type[R], id: str) -> AsyncGenerator[R | None, None]:
    """Return a stream of the run: now, after each transition, and null once it is deleted."""
    # The version is read first, so that no transition before the subscription is missed.
    known = await info.context.row(row, id, frozenset({"version"}))
    if known is None:
        return _gone()
    return _reloaded(info, row, known.id, await follow_run(_feed(info), kind, known.id, known.version))


async def _gone() -> AsyncGenerator[None, None]:
    yield None


async def _reloaded(
    info: Info, row: type[R], key: UUID, pieces: AsyncGenerator[RunHistoryPage, None]
) -> AsyncGenerator[R | None, None]:
    run: R | None = None
    async with aclosing(pieces):
        async for piece in pieces:
            # The first page can have no transition, but the run as it is now is sent anyway.
            if run is None or piece.transitions:
                info.context.forget()
                run = await info.context.load(info, row, key)
                yield run
                if run is None:
                    return
    yield None
