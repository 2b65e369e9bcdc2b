"""Batches → a trained dictionary."""
