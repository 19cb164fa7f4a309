"""Checks and explanations: consistency of the stored rows, and the page that documents the rules."""
