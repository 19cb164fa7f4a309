"""Mutations of all runs that meet a condition, in batches; and their progress: bulkOperation."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import orjson
import strawberry
from pydantic import BaseModel, ValidationError
from strawberry import UNSET
from strawberry.utils.str_converters import to_camel_case

from runstate.core import states
from runstate.core.batch.requests import ProposeState
from runstate.core.commands import bulk, flow_runs, proposals, task_runs
from runstate.core.commands.bulk import BulkCommand, Progress
from runstate.core.commands.runs import stated
from runstate.core.policies import CANCEL, RETRY
from runstate.core.states import State
from runstate.database.queries.counts import RUN_KINDS
from runstate.documents import exact_json, requests
from runstate.documents.access import Scope
from runstate.documents.decisions import OrchestrationStatus
from runstate.errors import IdempotencyConflict, InvalidInput
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import actor, mutation
from runstate.graphql.published import FlowRun, TaskRun
from runstate.graphql.types.conditions import Conditions, as_uuid, is_set
from runstate.graphql.types.derive import register_type
from runstate.graphql.types.fields import object_type, query, with_options
from runstate.graphql.types.filters import Where
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.problems import ProblemCode

M = TypeVar("M", bound=BaseModel)

DEFAULT_LIMIT: Final = 1_000
MOST_RUNS: Final = 10_000
LONGEST_KEY: Final = 200
PROPOSALS: Final = 25
"""Runs of a batch of proposals: others wait for one batch at most."""
DELETED_FLOW_RUNS: Final = 10
"""Flow runs that are deleted in one transaction, with all their task runs and states."""

WHICH = strawberry.argument(description="Condition on the runs; at least one member must be set.")
Limit = Annotated[int, strawberry.argument(description=f"Maximum number of runs, from 1 to {MOST_RUNS}.")]
After = Annotated[str | None, strawberry.argument(description="Only runs after this cursor of an earlier result.")]
DryRun = Annotated[bool, strawberry.argument(description="True to decide and count without writing.")]
Key = Annotated[
    str | None,
    strawberry.argument(
        description=f"Unique key of at most {LONGEST_KEY} characters. A repeated mutation with the key continues where "
        "the first one stopped, or returns its result; a different one is an IdempotencyConflict. `bulkOperation` "
        "returns the progress."
    ),
]
Proposed = Annotated[Input[requests.State], strawberry.argument(description="The proposed state.")]
Force = Annotated[
    bool, strawberry.argument(description="True to skip the rules that can reject; bookkeeping still applies.")
]
Message = Annotated[str | None, strawberry.argument(description="Reason, for people.")]
Delay = Annotated[float, strawberry.argument(description="Seconds until the runs are due.")]


register_type(OrchestrationStatus)


@object_type
class BulkOutcome:
    """An outcome that several runs share."""

    count: int = strawberry.field(description="Number of runs.")
    changed: bool = strawberry.field(
        description="True if the runs entered a state or were deleted; of a dry run, if they would."
    )
    status: OrchestrationStatus | None = strawberry.field(
        description="Decision of the rules, or ACCEPT for a deletion; null if there was none."
    )
    problem: ProblemCode | None = strawberry.field(description="Problem in place of a decision.")
    rule: str | None = strawberry.field(description="Name of the rule that decided; null if no rule objected.")
    reason: str | None = strawberry.field(description="Reason, for people.")
    run_ids: list[strawberry.ID] = strawberry.field(description="Ids of the first ten of these runs.")


@object_type
class BulkOperation:
    """The result of a mutation of many runs, or its progress."""

    total: int = strawberry.field(description="Number of runs that met the condition at the start.")
    done: int = strawberry.field(description="Number of runs that were handled.")
    changed: int = strawberry.field(description="Number of runs that entered a state or were deleted.")
    outcomes: list[BulkOutcome] = strawberry.field(description="Numbers of runs by outcome, largest first.")
    cursor: str | None = strawberry.field(description="Position after the last handled run, to go on with `after`.")
    has_more: bool = strawberry.field(description="True if further runs met the condition.")
    finished: bool = strawberry.field(
        description="True if the limit or the last run was reached. If not, 10 seconds have passed, the server is "
        "overloaded, the database is unavailable or the mutation is still running: repeat it with its key, or with the "
        "cursor."
    )
    key: str | None = strawberry.field(default=None, description="Idempotency key.")
    mutation: str | None = strawberry.field(default=None, description="Name of the mutation; null without a key.")
    created: datetime | None = strawberry.field(default=None, description="Start time; null without a key.")
    updated: datetime | None = strawberry.field(
        default=None, description="Time of the last change; null without a key."
    )


def _result(progress: Progress, **more: Any) -> BulkOperation:
    groups = sorted(progress.groups.items(), key=lambda each: -each[1][0])
    outcomes = [
        BulkOutcome(
            count=number,
            changed=group.changed,
            status=OrchestrationStatus(group.status) if group.status else None,
            problem=ProblemCode(group.problem) if group.problem else None,
            rule=group.rule,
            reason=group.reason,
            run_ids=[strawberry.ID(str(each)) for each in ids],
        )
        for group, (number, ids) in groups
    ]
    return BulkOperation(
        total=progress.total,
        done=progress.done,
        changed=sum(each.count for each in outcomes if each.changed),
        outcomes=outcomes,
        cursor=str(progress.cursor) if progress.cursor else None,
        has_more=progress.has_more,
        finished=progress.finished,
        **more,
    )


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments that all mutations of many runs have."""

    where: Any
    limit: Limit = DEFAULT_LIMIT
    after: After = UNSET
    dry_run: DryRun = False
    idempotency_key: Key = UNSET

    def checked(self) -> "Options":
        """Return the options. Raise InvalidInput for the first mistake."""
        if not any(map(is_set, vars(self.where).values())):
            raise InvalidInput("The condition is empty. To select all runs, use `id: {isNull: false}`.", ["where"])
        if not 1 <= self.limit <= MOST_RUNS:
            raise InvalidInput(f"The limit must be from 1 to {MOST_RUNS}.", ["limit"])
        if is_set(self.after) and as_uuid(str(self.after)) is None:
            raise InvalidInput("The cursor is malformed.", ["after"])
        if is_set(self.idempotency_key) and not _is_key(str(self.idempotency_key)):
            raise InvalidInput(
                f"The key must have from 1 to {LONGEST_KEY} characters, none of them NUL.", ["idempotencyKey"]
            )
        return self

    @property
    def stored_key(self) -> str | None:
        """The key under which the progress is stored; a dry run stores nothing."""
        return str(self.idempotency_key) if is_set(self.idempotency_key) and not self.dry_run else None


def _is_key(text: str) -> bool:
    return 0 < len(text) <= LONGEST_KEY and "\0" not in text


def _changing(scope: Scope, run: type[FlowRun | TaskRun]) -> Callable[[Any], Any]:
    shared = with_options(Options, where=Annotated[Where.__class_getitem__(run), WHICH])
    made = mutation(scope, InvalidInput, IdempotencyConflict, returns=BulkOperation, result="BulkResult")
    return lambda resolver: made(shared(resolver))


@strawberry.type
class Query:
    """The progress of mutations of many runs."""

    @query
    async def bulk_operation(
        self, info: Info, key: Annotated[str, strawberry.argument(description="The idempotency key.")]
    ) -> BulkOperation | None:
        """The progress or the result of the mutation with an idempotency key; null if the key is unknown."""
        row = None if "\0" in key else await bulk.stored_operation(info.context.commands, key)
        if row is None:
            return None
        return _result(Progress.of(row), key=row.key, mutation=row.mutation, created=row.created, updated=row.updated)


@strawberry.type
class Mutation:
    """Mutations of all runs that meet a condition."""

    @_changing(Scope.PROPOSE, FlowRun)
    async def propose_for_flow_runs(
        self,
        info: Info,
        *,
        options: Options,
        state: Proposed,
        force: Force = False,
    ) -> Any:
        """Propose a state for all flow runs that meet a condition, in batches, in the order of their ids.

        It ends after 10 seconds at the latest; `cursor` is the position to go on from.
        """
        return await _proposed_as_given(info, FlowRun, "proposeForFlowRuns", options, _state(state), force=force)

    @_changing(Scope.PROPOSE, TaskRun)
    async def propose_for_task_runs(
        self,
        info: Info,
        *,
        options: Options,
        state: Proposed,
        force: Force = False,
    ) -> Any:
        """Propose a state for all task runs that meet a condition, as proposeForFlowRuns does."""
        return await _proposed_as_given(info, TaskRun, "proposeForTaskRuns", options, _state(state), force=force)

    @_changing(Scope.PROPOSE, FlowRun)
    async def cancel_flow_runs(
        self,
        info: Info,
        *,
        options: Options,
        message: Message = UNSET,
    ) -> Any:
        """Cancel all flow runs that meet a condition, each as cancelFlowRun does, in batches."""
        document = _document(requests.CancelFlowRun, message=message or None)
        state = states.cancelling(message=document.message)
        return await _proposed(info, FlowRun, "cancelFlowRuns", options, state, {"policy": CANCEL, "quirks": False})

    @_changing(Scope.PROPOSE, FlowRun)
    async def retry_flow_runs(
        self,
        info: Info,
        *,
        options: Options,
        delay_seconds: Delay = 0.0,
        message: Message = UNSET,
    ) -> Any:
        """Retry all flow runs that meet a condition, each as retryFlowRun does, in batches."""
        document = _document(requests.RetryFlowRun, delay_seconds=delay_seconds, message=message or None)
        state = proposals.retried(document, info.context.now)
        more = {"policy": RETRY, "quirks": False}
        return await _proposed(info, FlowRun, "retryFlowRuns", options, state, more, delay_seconds)

    @_changing(Scope.ADMIN, FlowRun)
    async def delete_flow_runs(
        self,
        info: Info,
        *,
        options: Options,
    ) -> Any:
        """Delete all flow runs that meet a condition, each as deleteFlowRun does, in batches."""
        return await _deleted(info, FlowRun, "deleteFlowRuns", options, flow_runs.delete_matching_flow_runs)

    @_changing(Scope.ADMIN, TaskRun)
    async def delete_task_runs(
        self,
        info: Info,
        *,
        options: Options,
    ) -> Any:
        """Delete all task runs that meet a condition, each as deleteTaskRun does, in batches."""
        return await _deleted(info, TaskRun, "deleteTaskRuns", options, task_runs.delete_matching_task_runs)


NO_ID: Final = UUID(int=0)
"""In place of the id in documents of single runs, which check the other members."""


def _document(kind: type[M], **members: Any) -> M:
    try:
        return kind(id=NO_ID, **members)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise InvalidInput(first["msg"], [to_camel_case(str(part)) for part in first["loc"]]) from error


def _state(given: Any) -> State:
    document = given.checked()
    if document.details is not None and document.details.run_input_keyset:
        raise InvalidInput("Runs that wait for input are paused one by one.", ["state", "details", "runInputKeyset"])
    return stated(document)


def _digest(mutation: str, *given: Any) -> str:
    """Return a digest of the arguments: a mutation with the same digest is the same."""
    # Sorted: the order of members in the variables of a client has no meaning.
    text = exact_json.dumps([mutation, *map(_plain, given)], option=orjson.OPT_SORT_KEYS)
    return sha256(text).hexdigest()


def _plain(value: Any) -> Any:
    """Return an input as JSON has it."""
    if isinstance(value, Conditions):
        return {name: _plain(each) for name, each in vars(value).items() if each is not UNSET}
    return [_plain(each) for each in value] if isinstance(value, list) else value


async def _proposed_as_given(
    info: Info, run: type[FlowRun | TaskRun], mutation: str, given: Options, state: State, *, force: bool
) -> BulkOperation:
    parts = state.data, state.details.model_dump(mode="json"), force
    return await _proposed(info, run, mutation, given, state, {"force": force}, *parts)


async def _proposed(
    info: Info,
    run: type[FlowRun | TaskRun],
    mutation: str,
    given: Options,
    state: State,
    more: dict[str, Any],
    *parts: Any,
) -> BulkOperation:
    """Propose a state for the runs; *parts* are arguments that identify the mutation besides type, name and message."""
    options, where = given.checked(), given.where.clause(run.__table__)
    # Without the details: the times in the state of a retry depend on the time of the request.
    known_by = state.type.value, state.name, state.message, *parts
    digest = _digest(mutation, options.where, options.limit, options.after or "", *known_by)

    def make(run_id: UUID, version: int) -> ProposeState:
        return ProposeState(
            kind=RUN_KINDS[run],
            run_id=run_id,
            state=state,
            expected_version=version,
            # Each proposal gets the key, too: a repetition after a crash changes no run a second time.
            idempotency_key=f"{mutation} {options.stored_key}" if options.stored_key else None,
            fingerprint_source=digest,
            dry_run=options.dry_run,
            **more,
            **actor(info),
        )

    act = bulk.proposing(info.context.batcher, run, where, make)
    return await _executed(info, run, mutation, options, act, digest)


async def _deleted(
    info: Info, run: type[FlowRun | TaskRun], mutation: str, given: Options, delete: bulk.Delete
) -> BulkOperation:
    options, where = given.checked(), given.where.clause(run.__table__)
    digest = _digest(mutation, options.where, options.limit, options.after or "")
    act = bulk.deleting(info.context.commands, run, where, delete, dry_run=options.dry_run)
    return await _executed(info, run, mutation, options, act, digest)


async def _executed(
    info: Info, run: type[FlowRun | TaskRun], mutation: str, options: Options, act: bulk.Act, digest: str
) -> BulkOperation:
    progress = await bulk.execute(
        info.context.commands,
        BulkCommand(
            mutation=mutation,
            run=run,
            where=options.where.clause(run.__table__),
            act=act,
            # A flow run is deleted with all its task runs, so fewer of them fit into a transaction.
            batch=DELETED_FLOW_RUNS if mutation == "deleteFlowRuns" else PROPOSALS,
            limit=options.limit,
            after=as_uuid(str(options.after)) if is_set(options.after) else None,
            key=options.stored_key,
            fingerprint=digest,
        ),
    )
    return _result(progress, key=options.stored_key, mutation=mutation if options.stored_key else None)
