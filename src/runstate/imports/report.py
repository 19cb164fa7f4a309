"""The report of an import: what was imported, what was there, and what has no place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MOST_NAMED: Final = 5
"""Ids that a line of the report names."""


@dataclass(slots=True)
class Numbers:
    """Numbers of rows of one table."""

    found: int = 0
    imported: int = 0
    existing: int = 0
    """Rows whose id was there."""


@dataclass(slots=True)
class Remark:
    """Something that the reader of a report should know about some rows."""

    number: int = 0
    named: list[str] = field(default_factory=list)


class Report:
    """The numbers and remarks of an import."""

    def __init__(self) -> None:
        self.tables: defaultdict[str, Numbers] = defaultdict(Numbers)
        self.remarks: dict[tuple[str, str], Remark] = {}
        self.homeless: Counter[tuple[str, str]] = Counter()
        """Numbers of rows without a place, by table and reason."""

    def remark(self, table: str, text: str, name: object) -> None:
        """Note something about a row of a table."""
        noted = self.remarks.setdefault((table, text), Remark())
        noted.number += 1
        if len(noted.named) < MOST_NAMED:
            noted.named.append(str(name))

    def remark_number(self, table: str, text: str, number: int) -> None:
        """Note something about a number of rows of a table."""
        self.remarks[table, text] = Remark(number)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report."""
        yield f"{'table':<24}{'found':>10}{'imported':>10}{'existing':>10}{'left out':>10}"
        for name, each in self.tables.items():
            left = each.found - each.imported - each.existing
            yield f"{name:<24}{each.found:>10}{each.imported:>10}{each.existing:>10}{left:>10}"
        yield from self._remarks()
        if self.homeless:
            yield "\nWithout a place in runstate:"
        for (name, reason), number in self.homeless.items():
            yield f"  {name} ({number}): {reason}"

    def _remarks(self) -> Iterator[str]:
        if self.remarks:
            yield "\nTo know:"
        for (name, text), each in self.remarks.items():
            more = " …" if each.number > len(each.named) else ""
            named = f": {', '.join(each.named)}{more}" if each.named else ""
            yield f"  {name} ({each.number}): {text}{named}"
