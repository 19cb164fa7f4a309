"""Storage: connections, transactions, statements and migrations, for SQLite and PostgreSQL."""

from runstate.database.engine import Database, Transaction

__all__ = ["Database", "Transaction"]
