"""Stores elsewhere: at a URL, read-only, as far as they are asked for."""
