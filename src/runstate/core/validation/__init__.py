"""Validation against JSON schemas that clients store."""
