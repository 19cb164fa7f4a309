"""How services write states: they propose them for the version they have seen, so two servers never do it twice."""

from collections.abc import Callable

import structlog

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, Outcome, ProposeState
from runstate.core.states import State
from runstate.database.queries.due import DueQuery, Found, pages
from runstate.documents.access import SERVER
from runstate.documents.states import RunKind
from runstate.errors import RunstateError

log = structlog.get_logger(__name__)


async def propose_all(batcher: Batcher, due: DueQuery, proposal: Callable[[Found], ProposeState]) -> int:
    """Propose a state for each run that is due; how many entered one. A run that has moved on stays as it is."""
    entered = 0
    async for page in pages(batcher.database, due):
        entered += sum([_has_entered(outcome) for outcome in await batcher.submit([proposal(run) for run in page])])
    return entered


def _has_entered(outcome: Outcome) -> bool:
    if isinstance(outcome, Exception) and not isinstance(outcome, RunstateError):
        log.error("a proposal failed", exc_info=outcome)
    return isinstance(outcome, Answer) and outcome.written is not None


def forced(kind: RunKind, run: Found, state: State) -> ProposeState:
    """The proposal that a run enters a state, past the rules that guard, if it is still at the version seen."""
    return ProposeState(kind=kind, run_id=run.id, state=state, force=True, expected_version=run.version, actor=SERVER)
