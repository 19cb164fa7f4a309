"""Effects of actions: on our own tables, on runs through the batcher, and on receivers outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core import states
from runstate.core.actions.rendering import TemplateFailed
from runstate.core.actions.sending import SendingFailed
from runstate.core.actions.subjects import names_for, templates_of
from runstate.core.actions.targets import kind_of, resource_id, target
from runstate.core.automations.events import Event
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, ProposeState
from runstate.core.commands import automations, deployments, flow_runs, run_inputs, work_pools
from runstate.core.commands.block_documents import read_data
from runstate.core.commands.runs import decided, stated
from runstate.core.context import CommandContext
from runstate.database import Database, Transaction
from runstate.documents import requests
from runstate.documents.actions import (
    CallWebhookAction,
    ChangeFlowRunStateAction,
    DoNothingAction,
    FlowRunAction,
    FlowRunVerb,
    PausableKind,
    PauseAction,
    ResumeAction,
    RunDeploymentAction,
)
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.states import RunKind, StateType
from runstate.errors import NotFound
from runstate.rows import Automation, AutomationActionRun, AutomationFiring, BlockDocument, BlockType, FlowRunState

SUSPENDED_SECONDS: Final = 3600


class ActionFailed(Exception):
    """An action failed for good."""


@dataclass(frozen=True, slots=True)
class Work:
    """An action with what it needs to be executed."""

    run: AutomationActionRun
    firing: AutomationFiring
    automation: Automation | None
    """The automation; None if it was deleted meanwhile."""
    event: Event | None

    @property
    def action(self) -> Any:
        """The action."""
        return self.run.action

    @property
    def name(self) -> str:
        """Name of the automation."""
        return self.automation.name if self.automation else str(self.firing.automation_id)

    @property
    def labels(self) -> dict[str, str]:
        """Values of forEach by label."""
        return {each.label: each.value for each in self.firing.labels}

    @property
    def actor(self) -> str:
        """Actor of the states that the action proposes."""
        return f"automation:{self.name}"[:255]

    def target(self) -> UUID:
        """Return the id of the object that the action is about. Raise NoTarget if it cannot be inferred."""
        return cast("UUID", target(self.action, self.event, self.labels))


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of an action."""

    results: Sequence[str] = ()
    details: Mapping[str, Any] | None = None
    """Members of the payload of its event."""


class Joined:
    """A database whose transactions are all the same one, so that a command becomes part of it."""

    def __init__(self, database: Database, transaction: Transaction) -> None:
        self.database, self.transaction = database, transaction

    @asynccontextmanager
    async def write(self) -> Any:
        """Yield the transaction; the caller commits it."""
        yield self.transaction

    @asynccontextmanager
    async def read(self) -> Any:
        """Yield the connection of the transaction."""
        yield self.transaction.connection

    def notify(self, channel: str) -> None:
        """Notify subscribers after the commit."""
        self.transaction.notify(channel)


def is_own(action: Any) -> bool:
    """Return whether an action changes our tables only, without the batcher."""
    deletes = isinstance(action, FlowRunAction) and action.verb is FlowRunVerb.DELETE
    return deletes or isinstance(action, DoNothingAction | PauseAction | ResumeAction)


async def change_tables(context: CommandContext, transaction: Transaction, work: Work) -> Effect:
    """Execute an action in a transaction."""
    # The command and the mark that it was executed commit together, or not at all.
    joined = replace(context, database=cast("Database", Joined(context.database, transaction)))
    match work.action:
        case DoNothingAction():
            return Effect()
        case PauseAction(kind=kind) | ResumeAction(kind=kind):
            await _pause(joined, transaction.connection, kind, work.target(), paused=_pauses(work.action))
        case FlowRunAction():
            await flow_runs.delete_flow_run(joined, work.target())
    return Effect([resource_id(str(kind_of(work.action)), work.target())])


def _pauses(action: Any) -> bool:
    return isinstance(action, PauseAction)


async def _pause(
    context: CommandContext, connection: AsyncConnection, kind: PausableKind, id: UUID, *, paused: bool
) -> None:
    match kind:
        case PausableKind.AUTOMATION:
            await automations.set_enabled(context, connection, id, enabled=not paused)
        case PausableKind.DEPLOYMENT:
            await (deployments.pause_deployment if paused else deployments.resume_deployment)(context, id)
        case PausableKind.WORK_POOL:
            await work_pools.update_pool(context, work_pools.UpdateWorkPool(id=id, paused=paused))
        case PausableKind.WORK_QUEUE:
            await work_pools.update_queue(context, work_pools.UpdateWorkQueue(id=id, paused=paused))


async def act(batcher: Batcher, work: Work, now: datetime) -> Effect:
    """Execute an action that changes runs, or sends something. A repetition changes nothing twice."""
    match work.action:
        case RunDeploymentAction():
            return await _run(batcher, work, now)
        case FlowRunAction() | ChangeFlowRunStateAction():
            return await _propose(batcher, work, now)
    return await _send(batcher.context, work)


async def _rendered(context: CommandContext, work: Work) -> Any:
    templates = templates_of(work.action)
    if templates is None:
        return {}
    firing = {"id": str(work.firing.id), "fired": work.firing.fired.isoformat()}
    automation = {"id": str(work.firing.automation_id)}
    if work.automation:
        automation |= {"description": work.automation.description}
    names = await names_for(
        context, templates.values, work.event, work.name, work.labels, firing=firing, automation=automation
    )
    try:
        return await context.templates.render(templates.values, names, typed=templates.typed)
    except TemplateFailed as error:
        raise ActionFailed(f"The template failed: {error}") from None


async def _run(batcher: Batcher, work: Work, now: datetime) -> Effect:
    action = work.action
    rendered = await _rendered(batcher.context, work)
    document = requests.RunDeployment(
        deployment_id=work.target(),
        parameters=rendered.get("parameters"),
        job_variables=action.job_variables,
        scheduled_time=now + timedelta(seconds=action.schedule_after_seconds),
        # An action that is tried again after a lost answer finds the run that it has created.
        idempotency_key=f"automation-action:{work.run.id}",
    )
    made = await flow_runs.run_deployment(batcher, document, actor=work.actor, cause=work.firing.id)
    return Effect([resource_id("flow-run", made.row.id)])


async def _propose(batcher: Batcher, work: Work, now: datetime) -> Effect:
    run_id, key = work.target(), f"automation-action:{work.run.id}:{work.run.retries}"
    if isinstance(work.action, FlowRunAction) and work.action.verb is FlowRunVerb.RESUME:
        answer = await run_inputs.resume(
            batcher,
            requests.ResumeFlowRun(id=run_id, idempotency_key=key),
            actor=work.actor,
            cause=work.firing.id,
        )
    else:
        answer = await decided(
            batcher,
            ProposeState(
                kind=RunKind.FLOW_RUN,
                run_id=run_id,
                state=_state(work, now),
                force=getattr(work.action, "force", False),
                idempotency_key=key,
                actor=work.actor,
                cause=work.firing.id,
                fingerprint_source=work.action.model_dump_json(),
            ),
        )
    if answer.status is not OrchestrationStatus.ACCEPT and not await _is_cancelled(batcher.context, work, answer):
        raise ActionFailed(answer.reason or f"The proposal got the answer {answer.status.value}.")
    return Effect([resource_id("flow-run", run_id)])


def _state(work: Work, now: datetime) -> states.State:
    action = work.action
    if isinstance(action, ChangeFlowRunStateAction):
        message = action.message or f"State changed by Automation {work.name}"
        return stated(requests.State(type=action.type, name=action.name, message=message))
    if action.verb is FlowRunVerb.SUSPEND:
        return states.suspended(now, timeout_seconds=SUSPENDED_SECONDS)
    return stated(requests.State(type=StateType.CANCELLING))


async def _is_cancelled(context: CommandContext, work: Work, answer: Answer) -> bool:
    """Return whether a run was CANCELLED at once in place of CANCELLING."""
    if not isinstance(work.action, FlowRunAction) or work.action.verb is not FlowRunVerb.CANCEL:
        return False
    if answer.written is not None:
        return answer.written.type is StateType.CANCELLED
    if not answer.replayed:
        return False
    async with context.database.read() as connection:
        asked = sa.select(FlowRunState.type).where(FlowRunState.id == answer.state_id)
        return (await connection.execute(asked)).scalar() is StateType.CANCELLED


async def _send(context: CommandContext, work: Work) -> Effect:
    rendered = await _rendered(context, work)
    document_id = work.action.block_document_id
    slug, data = await _block(context, document_id)
    block = [resource_id("block-document", document_id)]
    if isinstance(work.action, CallWebhookAction):
        if slug != "webhook":
            raise ActionFailed(f"The block is a `{slug}`, not a webhook.")
        headers = _headers(data, work)
        answer = await context.sender.call(
            str(data.get("method") or "POST").upper(), str(data.get("url")), headers, rendered["payload"]
        )
        details = {"status_code": answer.status, "response_body": answer.body, "response_headers": answer.headers}
        return Effect(block, details)
    urls = _urls(data)
    if not urls:
        raise ActionFailed(f"The block is a `{slug}`, which has no `url` to send notifications to.")
    await context.sender.notify(urls, rendered["subject"], rendered["body"])
    return Effect(block)


async def _block(context: CommandContext, id: UUID) -> tuple[str, dict[str, Any]]:
    asked = (
        sa.select(BlockType.slug)
        .join(BlockDocument, BlockDocument.block_type_id == BlockType.id)
        .where(BlockDocument.id == id)
    )
    async with context.database.read() as connection:
        slug = (await connection.execute(asked)).scalar()
        found = await read_data(connection, context.keyring, [id], reveal=True)
    if slug is None or id not in found:
        raise NotFound(id, message=f"No block document has the id {id}.")
    return slug, found[id]


def _headers(data: Mapping[str, Any], work: Work) -> dict[str, str]:
    given = data.get("headers")
    headers = {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {}
    known = {name.lower() for name in headers}
    defaults = {"content-type": "application/json", "user-agent": "runstate"}
    headers |= {name: value for name, value in defaults.items() if name not in known}
    # Otherwise a value could add headers, or a second request.
    if any("\r" in each or "\n" in each for pair in headers.items() for each in pair):
        raise SendingFailed("A header of the webhook contains a line break.")
    # A receiver can recognize a webhook that is sent again because its answer was lost.
    return headers | {"idempotency-key": str(work.run.id)}


def _urls(data: Mapping[str, Any]) -> list[str]:
    # Blocks of different services name it differently.
    found = data.get("url") or data.get("urls") or data.get("apprise_url") or []
    return [str(each) for each in (found if isinstance(found, list) else [found])]
