"""Rows of a store in batches: which come when, and how they are read."""
