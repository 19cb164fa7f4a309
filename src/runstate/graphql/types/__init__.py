"""GraphQL types derived from rows and documents. Knows rows and documents only."""
