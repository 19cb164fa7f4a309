"""What has happened: the log's cursor, and subscriptions to transitions and runs."""

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
    Feed,
    Hub,
    LogFilter,
    Page,
    RunHistoryPage,
    TagFilter,
    TransitionFilter,
    follow,
    follow_run,
)
from runstate.graphql.context import Info
from runstate.graphql.published import FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState, Transition
from runstate.graphql.types.comparisons import Conditions, TagsComparison, as_uuid, is_set, member
from runstate.graphql.types.derive import extends
from runstate.graphql.types.fields import Id, input_type, object_type, query, subscription
from runstate.graphql.types.inputs import Input

T = TypeVar("T")
R = TypeVar("R", FlowRun, TaskRun)

MOST_WANTED = 1_000
"""How many values one member of a condition may list."""


@input_type()
class TransitionWhere(Conditions):
    """Which transitions: all that is given must hold; an empty list matches nothing. Null is no condition."""

    may_be_empty = True

    run_kind: RunKind | None = member("Of flow runs or of task runs.")
    run_ids: list[strawberry.ID] | None = member("Of one of these runs.")
    flow_run_ids: list[strawberry.ID] | None = member("Of one of these flow runs or of a task run in it.")
    flow_ids: list[strawberry.ID] | None = member("Of runs of one of these flows.")
    deployment_ids: list[strawberry.ID] | None = member("Of runs of one of these deployments.")
    state_types: list[StateType] | None = member("To a state of one of these types.")
    state_names: list[str] | None = member("To a state of one of these names.")
    tags: TagsComparison | None = member("Of runs with such tags, at the time of the transition.")

    def filter(self) -> TransitionFilter:
        """The condition as the feed knows it."""
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
        raise BadUserInput(f"A condition lists at most {MOST_WANTED} values.")
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
    """Some transitions, in version order for each run, and where to go on after them."""

    cursor: str = strawberry.field(description="Subscribe after this to get what follows, on any server.")
    transitions: list[Transition] = strawberry.field(description="At most 100; none: nothing happened for a while.")
    shared: strawberry.Private[Any] = None
    """Equal for batches with the same transitions and cursor."""


@extends(Transition)
async def state(root: strawberry.Parent[Transition], info: Info) -> State | None:
    """The state that was entered; null once it is deleted."""
    kind = FlowRunState if root.run_kind is RunKind.FLOW_RUN else TaskRunState
    return await info.context.load(info, kind, root.state_id)


@extends(Transition)
async def run(root: strawberry.Parent[Transition], info: Info) -> Run | None:
    """The run as it is now; null once it is deleted."""
    return await info.context.load(info, FlowRun if root.run_kind is RunKind.FLOW_RUN else TaskRun, root.run_id)


@strawberry.type
class Query:
    """Where the log is."""

    @query
    async def transition_cursor(self, info: Info) -> str:
        """Where the log of transitions ends now.

        Ask it before you read, then subscribe after it, and nothing falls between.
        """
        return await _hub(info).end_cursor()


Which = Annotated[TransitionWhere | None, strawberry.argument(description="Which ones; all unless given.")]
After = Annotated[
    str | None, strawberry.argument(description="All that came after this cursor; from now on unless given.")
]
AfterVersion = Annotated[
    int | None, strawberry.argument(description="Only later versions; from the first on unless given.")
]
UntilFinal = Annotated[bool, strawberry.argument(description="Complete when the run is in a final state.")]
Reference = Annotated[Input[RunRef], strawberry.argument(description="The run.")]


@strawberry.type
class Subscription:
    """What happens."""

    @subscription
    async def transitions(
        self, info: Info, where: Which = UNSET, after: After = UNSET
    ) -> AsyncGenerator[TransitionBatch, None]:
        """Every committed transition that matches, exactly once for each chain of cursors.

        Those of one run come in the order of their versions. Without `after`: from now on. With it: all since then,
        then live. The first batch comes at once and may be empty; an empty batch follows at least every 30 seconds, so
        that a quiet subscriber's cursor stays fresh. A bad cursor is an error with code INVALID_INPUT or
        CURSOR_EXPIRED. Deleting a run is not a transition.
        """
        wanted: LogFilter[Any] = where.filter() if where else EVERYTHING
        return _batches(info, await follow(_hub(info), wanted, after if is_set(after) else None))

    @subscription
    async def run_transitions(
        self, info: Info, run: Reference, after_version: AfterVersion = UNSET, *, until_final: UntilFinal = False
    ) -> AsyncGenerator[Transition, None]:
        """The transitions of one run, from its first version on, one at a time and without a gap.

        Complete once the run is deleted.
        """
        kind, key = _referred(run)
        version = max(after_version or 0, 0)
        return _singly(info, await follow_run(_feed(info), kind, key, version, until_final=until_final))

    @subscription
    async def flow_run(self, info: Info, id: Id) -> AsyncGenerator[FlowRun | None, None]:
        """The flow run with an id as it is now, and again after each transition; null once it is deleted."""
        return await _live(info, RunKind.FLOW_RUN, FlowRun, id)

    @subscription
    async def task_run(self, info: Info, id: Id) -> AsyncGenerator[TaskRun | None, None]:
        """The task run with an id as it is now, and again after each transition; null once it is deleted."""
        return await _live(info, RunKind.TASK_RUN, TaskRun, id)


def _feed(info: Info) -> Feed:
    feed: Feed = info.context.feed
    return feed


def _hub(info: Info) -> Hub[Any]:
    return _feed(info).transitions


def _referred(run: Any) -> tuple[RunKind, Any]:
    ref = run.checked()
    return (RunKind.FLOW_RUN, ref.flow_run_id) if ref.flow_run_id else (RunKind.TASK_RUN, ref.task_run_id)


async def _batches(info: Info, pages: AsyncGenerator[Page[Any], None]) -> AsyncGenerator[TransitionBatch, None]:
    async with aclosing(pages):
        async for page in pages:
            info.context.forget()
            cursor, entries = _hub(info).reader.encode(page.cursor), page.entries
            yield TransitionBatch(
                cursor=cursor, transitions=entries, shared=(cursor, len(entries), entries[0].seq if entries else 0)
            )


async def _singly(info: Info, pieces: AsyncGenerator[RunHistoryPage, None]) -> AsyncGenerator[Transition, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            for each in piece.transitions:
                info.context.forget()
                yield each


async def _live(info: Info, kind: RunKind, row: type[R], id: str) -> AsyncGenerator[R | None, None]:
    """Return a stream of the run, now and after each transition, that ends with null once it is deleted."""
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
            if run is None or piece.transitions:
                info.context.forget()
                run = await info.context.load(info, row, key)
                yield run
                if run is None:
                    return
    yield None
