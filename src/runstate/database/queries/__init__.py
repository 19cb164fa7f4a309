"""Statements that are more than a filter on one table, in a module per subject."""
