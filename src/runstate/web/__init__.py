"""The pages, for people: their sources, and how they are served."""
