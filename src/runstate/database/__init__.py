"""Where it is kept."""

from runstate.database.engine import Database, Transaction

__all__ = ["Database", "Transaction"]
