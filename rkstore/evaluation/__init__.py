"""Evaluation of dictionaries: metrics on held-out rows, and comparisons.

``measure.py`` says what is measured, ``evaluate.py`` measures checkpoints on a store,
``functional.py`` in the store's model, ``checkpoints.py`` finds those that belong to it,
``lifetimes.py`` finds when each latent first fires, ``paired.py`` compares runs that differ in one
thing, ``record.py`` keeps the runs of a study, and ``report/`` makes tables, figures and pages.
"""
