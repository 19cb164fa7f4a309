"""The shapes that the tables have had, one migration after the other."""
