"""Connections: keyset cursors, pages, and the rows on them."""
