"""The built package contains the pages, and works without them."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def wheel(directory: Path, source: Path, **environment: str) -> list[str]:
    """Return the names of the files in the wheel of a source."""
    constraints = str(ROOT / "constraints.txt")
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(source)],
        check=True,
        env={**os.environ, "PIP_BUILD_CONSTRAINT": constraints, **environment},
    )
    (built,) = directory.glob("runstate-*.whl")
    return zipfile.ZipFile(built).namelist()


@pytest.mark.usefixtures("built")
def test_the_wheel_contains_the_pages_and_not_their_sources(tmp_path: Path) -> None:
    names = wheel(tmp_path, ROOT)
    pages = [name.removeprefix("runstate/web/") for name in names if name.startswith("runstate/web/")]
    code = {name for name in pages if not name.startswith("built/")}

    assert code == {"__init__.py", "pages.py"}
    for page in ("built/index.html", "built/graphiql/index.html"):
        assert {page, f"{page}.br", f"{page}.gz"} <= set(pages)
    assert "built/NOTICES.txt" in pages
    assert any(name.startswith("built/assets/graphql.worker-") and name.endswith(".js.br") for name in pages)


def test_without_npm_a_wheel_is_built_unless_pages_are_required(tmp_path: Path) -> None:
    source = tmp_path / "source"
    git = shutil.which("git") or "git"
    subprocess.run([git, "clone", "--quiet", "--depth=1", f"file://{ROOT}", source], check=True)  # noqa: S603
    nowhere = {"npm_config_registry": "http://127.0.0.1:1/", "npm_config_cache": str(tmp_path / "cache")}
    patience = {"npm_config_fetch_retry_mintimeout": "10", "npm_config_fetch_retry_maxtimeout": "10"}
    names = wheel(tmp_path, source, **nowhere, **patience)

    assert "runstate/web/pages.py" in names
    assert not any(name.startswith("runstate/web/built/") for name in names)
    with pytest.raises(subprocess.CalledProcessError):
        wheel(tmp_path, source, RUNSTATE_WEB="required", **nowhere, **patience)
