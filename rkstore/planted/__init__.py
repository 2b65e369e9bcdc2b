"""Stores whose truth is known: rows are sums of planted features, whose directions are recorded.

``settings.py`` holds the options, ``forest.py`` says which features fire under which and how often,
``features.py`` draws codes, ``sites.py`` says at which sites a feature is read and written,
``truth.py`` has the directions, ``store.py`` writes stores, and ``scores.py`` compares a dictionary
with the truth.
"""
