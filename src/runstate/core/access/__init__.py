"""Credentials: API keys, the principals that they stand for, and CSRF tokens."""
