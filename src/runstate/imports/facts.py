"""Rows of the reference on which many others depend, read before an import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from cryptography.fernet import Fernet

from runstate.errors import ConfigurationError
from runstate.imports.source import Source
from runstate.imports.values import json, uuid

KEY: Final = "ENCRYPTION_KEY"
"""Key of the row of `configuration` that holds the key of blocks."""
DEPLOYMENT: Final = "deployment:"
"""Beginning of the name of a limit that belongs to a deployment, followed by its id."""


@dataclass(slots=True)
class Facts:
    """Facts about a database of the reference."""

    paused: set[UUID] = field(default_factory=set)
    """Ids of paused deployments."""
    default_queues: set[UUID] = field(default_factory=set)
    limit_of: dict[UUID, UUID] = field(default_factory=dict)
    """Ids of the limits of deployments, by id of the deployment."""
    limit_names: set[str] = field(default_factory=set)
    """Names of global limits."""
    owners: dict[UUID, list[str]] = field(default_factory=dict)
    """Ids of the resources that own automations, by id of the automation."""
    collections: dict[str, UUID] = field(default_factory=dict)
    """Ids of collections of artifacts, by key."""
    fernet: Fernet | None = None
    """Decrypts the data of blocks; None if there is no key."""


async def facts_of(source: Source, key: str | None = None) -> Facts:
    """Return the facts about a database. `key` decrypts the data of blocks, if the database does not hold its key."""
    deployments = await _read(source, "deployment", "id", "paused", "concurrency_limit_id")
    related = await _read(
        source, "automation_related_resource", "automation_id", "resource_id", "automation_owned_by_resource"
    )
    owners: dict[UUID, list[str]] = {}
    for automation, resource, owns in related:
        if owns and resource:
            owners.setdefault(uuid(automation), []).append(resource)
    return Facts(
        paused={uuid(key) for key, paused, _ in deployments if paused},
        default_queues={uuid(queue) for (queue,) in await _read(source, "work_pool", "default_queue_id") if queue},
        limit_of={uuid(deployment): uuid(limit) for deployment, _, limit in deployments if limit},
        limit_names={name for (name,) in await _read(source, "concurrency_limit_v2", "name")},
        owners=owners,
        collections={name: uuid(key) for name, key in await _read(source, "artifact_collection", "key", "id")},
        fernet=await _fernet(source, key),
    )


async def _read(source: Source, table: str, *columns: str) -> Any:
    return await source.rows(sa.select(*source.selected(table, columns)))


async def _fernet(source: Source, key: str | None) -> Fernet | None:
    if key is None:
        asked = sa.select(*source.selected("configuration", ("value",))).where(sa.column("key") == KEY)
        found = [json(value) for (value,) in await source.rows(asked)]
        # The reference stores its key there unless it is set in its environment.
        key = found[0].get("fernet_key") if found and isinstance(found[0], dict) else None
    try:
        return Fernet(key.encode()) if key else None
    except ValueError:
        raise ConfigurationError("The key of the blocks is malformed: 32 bytes in URL-safe base64.") from None
