"""Families: the root fields of one table or subject each."""
