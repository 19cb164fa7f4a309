"""Background services. They write states as clients do, by proposals to the batcher."""

from runstate.services.runner import SERVICES, Runner, Service, chosen

__all__ = ["SERVICES", "Runner", "Service", "chosen"]
