"""Evaluates the triggers of automations."""

from datetime import datetime
from typing import Final
from weakref import WeakKeyDictionary

from runstate.core.batch.batcher import Batcher
from runstate.core.evaluation.evaluator import Evaluator
from runstate.database import Database

# Weak, so that an evaluator does not outlive the database of a closed application.
EVALUATORS: Final = WeakKeyDictionary[Database, Evaluator]()
"""The evaluator of each database of this process. It remembers what it has stored."""


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Evaluate the log up to its end, unless another server does, and return the number of firings."""
    database = batcher.database
    if database not in EVALUATORS:
        EVALUATORS[database] = Evaluator(database, batcher.clock)
    return await EVALUATORS[database].run_once()
