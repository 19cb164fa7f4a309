"""Evaluation of triggers: rounds over the log that write windows, firings and the position in one transaction."""
