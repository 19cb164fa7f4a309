"""Actions of automations: targets, templates, and their execution."""
