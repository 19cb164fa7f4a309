"""Commands that change rows: each takes a document and returns the row that it wrote."""
