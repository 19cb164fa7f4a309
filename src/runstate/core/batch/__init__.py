"""The one writer of states: requests are collected into batches, decided in memory and written in one transaction."""
