"""Check of the project's English in docstrings, descriptions, comments and pages.

Usage: python tools/prose.py [--statistics]. Exits with 1 if a text breaks a rule. The rules are in docs/changing.md.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = ("src", "tests", "benchmarks", "tools")
PAGES: Final = ("README.md", "CHANGELOG.md", "docs", "schema.graphql")
GENERATED: Final = ("built", "node_modules", "graphql_core", "programs")

OPENING: Final = re.compile(r"(What|Who|Whom|Whose|How|Which|Where|That|So)\b(?! to )")
"""A relative clause instead of a sentence or a noun."""
PHRASES: Final = re.compile(
    r"\bgiv(?:es?|en|ing) (?:it |them |slots |leases )?back\b|\btak(?:es?|en|ing) back\b|\blet(?:s|ting)? in\b"
    r"|\bstays? out\b|\bfor ever\b|\bis none\b|\bare none\b|\bunless (?:given|asked|set|they say)\b"
    r"|\bwho has\b|\bwhoever\b|\bwhat there is\b|\bmade up\b|\bby the way\b|\bat the door\b|\bnobody who\b"
    r"|\bthat it so\b|\bof its own accord\b|\bwants to be\b|\bis asked for\b|\bcomes to nothing\b|\bit is what\b",
    re.IGNORECASE,
)
"""Phrases to replace by terms of the field: release, expire, accept, reject, by default, required, generated."""


class Text(NamedTuple):
    """A text with its position, `file:line`."""

    place: str
    kind: str
    content: str


def main() -> int:
    """Print the texts that break a rule; return the exit code."""
    texts = list(_texts())
    faults = [f"{text.place}: {fault}" for text in texts if (fault := _fault(text))]
    if "--statistics" in sys.argv:
        docstrings = [text for text in texts if text.kind == "docstring"]
        opened = sum(1 for text in docstrings if OPENING.match(text.content))
        print(f"{opened} of {len(docstrings)} docstrings begin with a relative pronoun; {len(faults)} faults in all")
    else:
        print("\n".join(faults))
    return bool(faults)


def _fault(text: Text) -> str | None:
    if text.kind in {"docstring", "description"} and OPENING.match(text.content):
        return f"begins with a relative clause: {text.content[:60]!r}"
    if found := PHRASES.search(text.content):
        return f"uses {found[0]!r}"
    return None


def _texts() -> Iterator[Text]:
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if file != Path(__file__) and not set(GENERATED) & set(file.parts):
                yield from _of_module(file)
    for name in PAGES:
        path = ROOT / name
        for file in sorted(path.glob("*.md")) if path.is_dir() else [path]:
            yield from _of_page(file)


def _of_module(file: Path) -> Iterator[Text]:
    source = file.read_text()
    name = str(file.relative_to(ROOT))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Text(f"{name}:{node.lineno}", "docstring", " ".join(node.value.value.split()))
        elif isinstance(node, ast.keyword) and node.arg in {"doc", "description"} and _is_text(node.value):
            yield Text(f"{name}:{node.value.lineno}", "description", ast.literal_eval(node.value))
    for number, line in enumerate(source.splitlines(), 1):
        if (comment := re.search(r"(?:^|\s)# (?!noqa|type:)(.*)", line)) and '"' not in line:
            yield Text(f"{name}:{number}", "comment", comment[1])


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _of_page(file: Path) -> Iterator[Text]:
    is_code = False
    for number, line in enumerate(file.read_text().splitlines(), 1):
        is_code ^= line.startswith("```")
        if not is_code:
            yield Text(f"{file.relative_to(ROOT)}:{number}", "page", line.strip())


if __name__ == "__main__":
    sys.exit(main())
