"""Automations: triggers as pure functions over events and deadlines. Nothing here reads a clock or a database."""
