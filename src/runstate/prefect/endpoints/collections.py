"""Packages of the client."""

from typing import Any, Final

from runstate.documents.access import Scope
from runstate.errors import NotFound
from runstate.prefect.endpoint import Call, endpoint

PROCESS: Final[dict[str, Any]] = {
    "type": "process",
    "display_name": "Process",
    "description": "Runs flows in processes of the worker's machine.",
    "install_command": "pip install prefect",
    "is_beta": False,
    "default_base_job_configuration": {
        "job_configuration": {
            "command": "{{ command }}",
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "name": "{{ name }}",
            "stream_output": "{{ stream_output }}",
            "working_dir": "{{ working_dir }}",
        },
        "variables": {
            "type": "object",
            "properties": {
                "name": {"title": "Name", "type": "string", "description": "Name of the process."},
                "env": {
                    "title": "Environment variables",
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "description": "Environment of the process, besides that of the worker.",
                },
                "labels": {
                    "title": "Labels",
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "description": "Labels of the process.",
                },
                "command": {
                    "title": "Command",
                    "type": "string",
                    "description": "Command to start; by default the one that runs the flow run.",
                },
                "stream_output": {
                    "title": "Stream output",
                    "type": "boolean",
                    "default": True,
                    "description": "Whether the output of the process appears in that of the worker.",
                },
                "working_dir": {
                    "title": "Working directory",
                    "type": "string",
                    "format": "path",
                    "description": "Directory of the process; by default a temporary one.",
                },
            },
        },
    },
}
"""The kind of worker that comes with the client, and the template of its pools."""
VIEWS: Final[dict[str, Any]] = {
    "aggregate-worker-metadata": {"prefect": {"process": PROCESS}},
    "aggregate-flow-metadata": {},
    "aggregate-block-metadata": {},
}


@endpoint("GET", "/collections/views/{view}", Scope.READ)
async def view(call: Call) -> Any:
    """Return a catalogue of packages: that of workers has one kind, processes; the others are empty."""
    name = call.text("view")
    if name not in VIEWS:
        raise NotFound(message=f"There is no catalogue `{name}`.")
    return VIEWS[name]
