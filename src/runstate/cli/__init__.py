"""Commands of `runstate` that are clients of a server or of its database."""
