"""Loops over the database. States are written as everybody writes them: proposed at the batcher."""

from runstate.services.runner import SERVICES, Runner, Service, chosen

__all__ = ["SERVICES", "Runner", "Service", "chosen"]
