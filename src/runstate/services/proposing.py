"""Proposals by services. They name the version that was read, so that two servers never write a state twice."""

from collections.abc import Callable

import structlog

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, Outcome, ProposeState
from runstate.core.states import State
from runstate.database.queries.due import DueQuery, Found, pages
from runstate.documents.access import SERVICE
from runstate.documents.states import RunKind
from runstate.errors import RunstateError

log = structlog.get_logger(__name__)


async def propose_all(batcher: Batcher, due: DueQuery, proposal: Callable[[Found], ProposeState | None]) -> int:
    """Propose a state for each due run, and return how many entered one. Runs that have changed since stay.

    Runs without a proposal stay, too.
    """
    entered = 0
    async for page in pages(batcher.database, due):
        # Page by page: one batch of all due runs could hold a transaction for too long.
        proposals = [each for run in page if (each := proposal(run))]
        outcomes = await batcher.submit(proposals) if proposals else ()
        entered += sum([_has_entered(outcome) for outcome in outcomes])
    return entered


def _has_entered(outcome: Outcome) -> bool:
    # Problems are expected: the run has changed since it was read, or is gone.
    if isinstance(outcome, Exception) and not isinstance(outcome, RunstateError):
        log.error("a proposal failed", exc_info=outcome)
    return isinstance(outcome, Answer) and outcome.written is not None


def forced(service: str, kind: RunKind, run: Found, state: State) -> ProposeState:
    """Return a proposal that skips the rules, and is refused if the run has changed since it was read."""
    return ProposeState(
        kind=kind,
        run_id=run.id,
        state=state,
        force=True,
        quirks=False,
        expected_version=run.version,
        actor=SERVICE + service,
    )
