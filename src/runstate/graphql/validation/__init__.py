"""Checks of a document before it is executed: limits, cost, scopes."""
