"""The sources of the live page: strict types, unit tests, and a lock file that any registry can serve."""

import json
import re

import pytest

from runstate.web.build import HERE
from tests.node import Packages, npm_ci

PAGE = HERE / "page"


@pytest.fixture
def packages(built: None) -> Packages:
    """Return the packages that built the pages; a build that is kept from elsewhere has none."""
    if not (HERE / "node_modules/.bin/tsc").exists():
        assert npm_ci(HERE).returncode == 0
    return Packages(HERE)


def test_types_are_correct(packages: Packages) -> None:
    packages.run("node", "documents.mjs")
    packages.run("tsc", "--noEmit")


def test_units_do_what_they_should(packages: Packages) -> None:
    assert "passed" in packages.run("vitest", "run", "--reporter=verbose")


def test_the_lock_file_names_no_registry() -> None:
    locked = json.loads((HERE / "package-lock.json").read_text())["packages"]

    assert [name for name, each in locked.items() if "resolved" in each] == []


def test_every_document_is_used() -> None:
    names = re.findall(
        r"^(?:query|mutation|subscription) (\w+)", (PAGE / "documents.graphql").read_text(), re.MULTILINE
    )
    code = "\n".join(path.read_text() for path in PAGE.glob("*.ts*") if path.name != "documents.ts")

    assert [name for name in names if f"{name}Document" not in code] == []
