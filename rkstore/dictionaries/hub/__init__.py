"""Dictionaries in repositories of the Hugging Face Hub: fetched, pushed, and their card."""
