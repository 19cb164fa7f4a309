"""Schedules: their dates as pure functions, and the process that computes them within limits."""
