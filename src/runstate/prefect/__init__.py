"""The HTTP API that clients of Prefect 3 speak, as a thin front over the same commands, batches and queries."""
