"""Automations."""

from __future__ import annotations

from typing import Any

from runstate.core.commands import automations as commands
from runstate.documents.access import Scope
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.vocabulary import to_server


@endpoint("DELETE", "/automations/owned-by/{resource_id}", Scope.ADMIN, status=202)
async def delete_owned(call: Call) -> Any:
    """Delete the automations that a resource owns."""
    await commands.delete_owned_automations(call.context, to_server(call.text("resource_id")))
