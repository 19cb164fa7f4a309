"""GraphiQL: the sources of its page, the build, and the routes that serve it."""
