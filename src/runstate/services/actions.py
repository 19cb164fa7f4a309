"""Executes the actions of automations that fired."""

from datetime import datetime

from runstate.core.actions.execution import execute_due
from runstate.core.batch.batcher import Batcher


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Execute due actions and return their number. What changes our tables happens exactly once."""
    return await execute_due(batcher, now)
