"""The REST API of the reference's client: a translation between its JSON and the core."""
