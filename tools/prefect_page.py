"""Write the tables of docs/prefect.md: from the programs that the tests run, and from the declared endpoints."""

import ast
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Final

from runstate.prefect.endpoint import ENDPOINTS
from runstate.prefect.front import Front
from runstate.prefect.sockets import SOCKETS

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "prefect.md"
TESTS: Final = ROOT / "tests" / "prefect"
NAMED: Final = re.compile(r'"([a-z]_\w+\.py)"')


def page(text: str) -> str:
    """Return the page with its tables."""
    for name, table in (("programs", programs()), ("endpoints", endpoints())):
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(opening)
        text = before + opening + table + closing + rest.partition(closing)[2]
    return text


def programs() -> str:
    """Return the table of the programs that tests name."""
    tested = {name for file in TESTS.glob("test_*.py") for name in NAMED.findall(file.read_text())}
    rows = [f"| `{name}` | {_subject(TESTS / 'programs' / name)} |\n" for name in sorted(tested)]
    return "| program | subject |\n| --- | --- |\n" + "".join(rows)


def _subject(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0].rstrip(".")


def endpoints() -> str:
    """Return the table of the endpoints and sockets, by first part of the path."""
    Front(1, lambda *_: None, lambda _: None)  # imports the modules that declare them
    found = {(each.path, each.method) for each in ENDPOINTS} | {(path, "WebSocket") for path in SOCKETS}
    rows = []
    for first, several in groupby(sorted(found), lambda each: each[0].split("/")[1]):
        listed = ", ".join(f"`{method} {path}`" for path, method in several)
        rows.append(f"| {first.replace('_', ' ').replace('-', ' ')} | {listed} |\n")
    return "| subject | endpoints |\n| --- | --- |\n" + "".join(rows)


if __name__ == "__main__":
    text = page(PAGE.read_text())
    if sys.argv[1:] == ["--check"]:
        sys.exit(text != PAGE.read_text())
    PAGE.write_text(text)
