"""Imports of databases of other servers: Prefect's."""
