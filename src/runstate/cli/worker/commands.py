"""The command of a run: from the template of its pool, the job variables and the entry point of its deployment."""

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PLACEHOLDER: Final = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
FALLBACK: Final = {"command": "{{ command }}", "env": "{{ env }}", "working_dir": "{{ working_dir }}"}
"""Job configuration of a pool without a template."""


class CommandError(Exception):
    """The run has no command."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, its own environment variables, and its working directory."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None


def command_of(run: Mapping[str, Any], template: Mapping[str, Any]) -> Command:
    """Return the command of a claimed run. Raise CommandError without `command` and without an entry point."""
    deployment = run["deployment"] or {}
    properties = template.get("variables", {}).get("properties", {})
    defaults = {name: each["default"] for name, each in properties.items() if "default" in each}
    given = (deployment.get("jobVariables") or {}) | run["jobVariables"]
    variables = defaults | {name: value for name, value in given.items() if value is not None}
    filled = filled_in(template.get("job_configuration", FALLBACK), variables)
    environment = {name: str(value) for name, value in (filled.get("env") or {}).items() if value is not None}
    directory = filled.get("working_dir") or deployment.get("path")
    return Command(_arguments(filled.get("command"), deployment.get("entrypoint")), environment, directory)


def _arguments(command: Any, entrypoint: str | None) -> tuple[str, ...]:
    if isinstance(command, list) and command:
        return tuple(map(str, command))
    if isinstance(command, str) and command.strip():
        return tuple(shlex.split(command))
    if entrypoint:
        return (sys.executable, "-m", "runstate.cli.worker.entrypoint", entrypoint)
    raise CommandError("The deployment has no entry point, and its job variables have no `command`.")


def filled_in(value: Any, variables: Mapping[str, Any]) -> Any:
    """Return a job configuration with values for its placeholders; null for those without a value."""
    if isinstance(value, dict):
        return {key: filled_in(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [filled_in(each, variables) for each in value]
    if not isinstance(value, str):
        return value
    # A placeholder alone keeps the type of its value; inside a longer text it is text.
    if whole := PLACEHOLDER.fullmatch(value.strip()):
        return variables.get(whole[1])
    return PLACEHOLDER.sub(lambda found: str(variables.get(found[1]) or ""), value)
