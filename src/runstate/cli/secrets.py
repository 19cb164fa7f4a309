"""`runstate secrets new-key | rotate`: the keys that encrypt the secrets of blocks."""

import asyncio
import os
from typing import Annotated

import typer

from runstate.core.keyring import new_key
from runstate.core.rotation import rotate as rotated
from runstate.core.rotation import used_keys
from runstate.database.migrate import check_head
from runstate.errors import ConfigurationError, NoSecretKey
from runstate.secret_keys import keyring_of_secrets
from runstate.settings import Settings, database_of, load

cli = typer.Typer(no_args_is_help=True, help="Create and rotate the keys that encrypt the secrets of blocks.")

Url = Annotated[
    str | None, typer.Option("--database-url", help="URL of the database; RUNSTATE_DATABASE_URL by default.")
]


@cli.command(name="new-key")
def print_new_key() -> None:
    """Print a new key. Put it first in RUNSTATE_SECRET_KEYS_FILE or RUNSTATE_SECRET_KEYS, before the existing ones."""
    typer.echo(new_key())


@cli.command()
def rotate(database_url: Url = None) -> None:
    """Encrypt all secrets with the first key. Afterwards the other keys are not needed. Servers may be running.

    The exit code is 1 if secrets are left whose key is not configured.
    """
    done, keys, known = asyncio.run(_rotate(load(os.environ, database_url=database_url)))
    typer.echo(f"{done} secrets were encrypted with the first key.")
    for key, number in keys.items():
        typer.echo(f"{key}: {number} secrets{'' if key in known else ', whose key is not configured'}")
    if not keys.keys() <= known:
        raise typer.Exit(1)


async def _rotate(settings: Settings) -> tuple[int, dict[str, int], set[str]]:
    database = database_of(settings)
    try:
        await check_head(database)
        keyring = keyring_of_secrets(settings)
        done = await rotated(database, keyring)
        return done, await used_keys(database), set(keyring.keys)
    except NoSecretKey as error:
        raise ConfigurationError(error.message) from None
    finally:
        await database.close()
