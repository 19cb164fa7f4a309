"""Pydantic models that live inside a row or travel with a request."""
