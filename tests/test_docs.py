"""The documentation names existing files, settings and code."""

import re
import textwrap
from pathlib import Path

import pytest
from graphql import parse, specified_rules, validate
from graphql.validation import LoneAnonymousOperationRule

from runstate.graphql.schema import build_schema

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEST = re.compile(r"`(tests/[\w/]+(?:\.py)?)`")
BLOCK = re.compile(r"^ *```python (src/\S+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
OPERATION = re.compile(r"^```graphql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RULES = [each for each in specified_rules if each is not LoneAnonymousOperationRule]
SCHEMA = build_schema()._schema  # noqa: SLF001 it has no public name
LINK = re.compile(r"\]\(([\w./-]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_pages_exist(page: Path) -> None:
    text = page.read_text()
    named = [ROOT / path for path in TEST.findall(text)] + [page.parent / path for path in LINK.findall(text)]
    assert [str(path) for path in named if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_operations_in_pages_are_valid(page: Path) -> None:
    invalid = [
        (text, errors)
        for text in OPERATION.findall(page.read_text())
        if (errors := validate(SCHEMA, parse(text), RULES))
    ]
    assert invalid == []


def test_every_setting_is_in_the_readme() -> None:
    settings = (ROOT / "src/runstate/settings.py").read_text()
    names = re.findall(r"^    (\w+): .* = Field\($|^    (\w+): .* = Field\(.*$", settings, re.MULTILINE)
    readme = PAGES[0].read_text()
    assert [name for pair in names for name in pair if name and f"`RUNSTATE_{name.upper()}`" not in readme] == []


def test_code_blocks_with_a_path_equal_the_file() -> None:
    blocks = BLOCK.findall((ROOT / "docs/changing.md").read_text())
    assert "src/runstate/rows/variables.py" in dict(blocks)
    assert "src/runstate/graphql/families/variables.py" in dict(blocks)
    assert [path for path, text in blocks if textwrap.dedent(text) != (ROOT / path).read_text()] == []
