"""The import: walks over the declared tables in pages and writes what is missing, each page in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.keyring import Keyring
from runstate.database import Database, bulk
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.imports.facts import Facts
from runstate.imports.report import Report
from runstate.imports.source import Source
from runstate.imports.table import Columns, Extra, Homeless, LeftOut, Raw, Table
from runstate.imports.values import uuid
from runstate.rows import Row

PAGE: Final = 1_000
LOCK: Final = 0x696D706F7274
"""Key of the advisory lock that lets one import write a page while others wait."""

Watch = Callable[[str, int], None]
"""Is told the table and the number of rows of each page."""


class Importer:
    """One import. Without a target, nothing is looked up there; with `dry_run`, nothing is written."""

    def __init__(
        self,
        source: Source,
        target: Database | None,
        facts: Facts,
        keyring: Keyring,
        now: datetime,
        *,
        dry_run: bool = False,
        watch: Watch = lambda *_: None,
        page: int = PAGE,
    ) -> None:
        self.source = source
        self.target = target
        self.facts = facts
        self.keyring = keyring
        self.now = now
        self.dry_run = dry_run
        self.watch = watch
        self.page = page
        self.report = Report()
        self.renamed: defaultdict[type[Row], dict[UUID, UUID]] = defaultdict(dict)
        """Ids of existing rows with the unique key of a row that was not imported, by the id of that one."""
        self.promised: defaultdict[type[Row], set[UUID]] = defaultdict(set)
        """Ids of the rows that a dry run would import."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection | None]:
        """Yield a connection in a transaction; in a dry run one for reading, or None without a target."""
        if self.target is None:
            yield None
        elif self.dry_run:
            async with self.target.read() as connection:
                yield connection
        else:
            async with self.target.write() as transaction:
                if not self.target.is_sqlite:
                    # Two imports at once would both look for a row before either has written it.
                    await transaction.connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
                yield transaction.connection

    async def run(self, table: Table) -> None:
        """Import a table."""
        names, numbers = table.columns, self.report.tables[table.name]
        async for page in self.source.pages(table.name, names, self.page):
            raws = [dict(zip(names, each, strict=True)) for each in page]
            async with self.connection() as connection:
                # One transaction for a page: an import that is stopped goes on with the page that was not committed.
                imported, existing = await self._import(connection, table, raws)
            numbers.found, numbers.imported = numbers.found + len(raws), numbers.imported + imported
            numbers.existing += existing
            self.watch(table.name, len(raws))

    async def _import(self, connection: AsyncConnection | None, table: Table, raws: Sequence[Raw]) -> tuple[int, int]:
        """Write the missing rows of a page; return the number of those written and of those that were there."""
        there = await self._there(connection, table, raws)
        pairs = [pair for raw in raws if table.identify(raw) not in there for pair in self._converted(table, raw)]
        pairs = await self._referring(connection, table, pairs)
        pairs = await self._free(connection, table, pairs)
        extras = await table.attach(self, connection, pairs) if table.attach and pairs else []
        rows = [row for _, row in pairs]
        if self.dry_run:
            for each in (Extra(table.row, rows), *extras):
                # Later tables refer to these rows, which a dry run does not write.
                self.promised[each.row].update(row["id"] for row in each.rows)
        elif connection is not None and rows:
            await self._write(connection, table, rows, extras)
        return len(rows), len(there)

    async def _write(
        self, connection: AsyncConnection, table: Table, rows: list[Columns], extras: Sequence[Extra]
    ) -> None:
        if table.write:
            await table.write(self, connection, rows)
        else:
            await bulk.load(connection, table.row, rows)
        for each in extras:
            await bulk.load(connection, each.row, each.rows)

    def _converted(self, table: Table, raw: Raw) -> Iterable[tuple[Raw, Columns]]:
        try:
            row = table.converted(raw)
            if table.finish:
                table.finish(self, raw, row)
        except Homeless as error:
            self.report.homeless[table.name, str(error)] += 1
        except LeftOut as error:
            self.report.remark(table.name, f"left out: {error}", raw["id"])
        except ValueError as error:
            # Validation errors have many lines, and the report one for each row.
            reason = " ".join(str(error).split())[:200]
            self.report.remark(table.name, f"left out, because a value does not fit: {reason}", raw["id"])
        else:
            yield raw, row

    async def _there(self, connection: AsyncConnection | None, table: Table, raws: Sequence[Raw]) -> dict[UUID, Any]:
        """Return the ids of rows that exist, with the compared column; note those that differ."""
        rows = table_of(table.row)
        compared = rows.c[table.compared] if table.compared else sa.null()
        asked = sa.select(rows.c.id, compared).where(among(rows.c.id, [table.identify(each) for each in raws]))
        found = {} if connection is None else _pairs(await connection.execute(asked))
        if table.compared:
            for raw in raws:
                key, value = table.identify(raw), raw[table.compared]
                if key in found and value is not None and found[key] != uuid(value):
                    text = "existing, and in another state than in the source; left as it is"
                    self.report.remark(table.name, text, key)
        return found

    async def _referring(
        self, connection: AsyncConnection | None, table: Table, pairs: list[tuple[Raw, Columns]]
    ) -> list[tuple[Raw, Columns]]:
        """Return the rows whose needed references exist; make the others of their references null."""
        for name, each in table.fields.items():
            if each.refers is None:
                continue
            renamed = self.renamed[each.refers]
            for _, row in pairs:
                # A row that was left out for its unique key is represented by the existing one with that key.
                row[name] = renamed.get(row[name], row[name])
            asked = {row[name] for _, row in pairs} - {None}
            missing = asked - await self.present(connection, each.refers, asked)
            if missing:
                pairs = [pair for pair in pairs if self._keeps(table, name, pair[1], missing, needed=each.needed)]
        return pairs

    def _keeps(self, table: Table, name: str, row: Columns, missing: set[UUID], *, needed: bool) -> bool:
        if row[name] not in missing:
            return True
        what = "left out" if needed else "imported without it"
        self.report.remark(table.name, f"{what}, because {name} refers to nothing", row["id"])
        row[name] = None
        return not needed

    async def present(self, connection: AsyncConnection | None, row: type[Row], ids: set[UUID]) -> set[UUID]:
        """Return which of these ids rows have, in a dry run also those that would be imported."""
        promised = self.promised[row] & ids if self.dry_run else set()
        if connection is None or not ids - promised:
            return promised
        column = table_of(row).c.id
        return promised | set((await connection.execute(sa.select(column).where(among(column, sorted(ids))))).scalars())

    async def _free(
        self, connection: AsyncConnection | None, table: Table, pairs: list[tuple[Raw, Columns]]
    ) -> list[tuple[Raw, Columns]]:
        """Return the rows whose unique key is free; note which rows have the keys of the others."""
        if not table.key or not pairs:
            return pairs
        taken = {} if connection is None else await self._taken(connection, table, [row for _, row in pairs])
        free = []
        for raw, row in pairs:
            key = tuple(row[name] for name in table.key)
            if None not in key and key in taken:
                self.renamed[table.row][row["id"]] = taken[key]
                self.report.remark(table.name, f"left out, because another one has its {table.key[-1]}", str(key[-1]))
            else:
                taken[key] = row["id"]
                free.append((raw, row))
        return free

    async def _taken(self, connection: AsyncConnection, table: Table, rows: Sequence[Columns]) -> dict[Any, UUID]:
        if not any(None not in [row[name] for name in table.key] for row in rows):
            return {}
        columns = table_of(table.row).c
        # The last column tells most rows apart, and has an index or a small table.
        first, last = columns[table.key[0]], columns[table.key[-1]]
        asked = sa.select(columns.id, *(columns[name] for name in table.key))
        for column in {first, last}:
            given = {row[column.key] for row in rows} - {None}
            asked = asked.where(among(column, sorted(given, key=str)))
        return {tuple(key): found for found, *key in await connection.execute(asked)}


def _pairs(found: Iterable[Any]) -> dict[UUID, Any]:
    return {key: value for key, value in found}  # noqa: C416 rows are no pairs for the type checker
