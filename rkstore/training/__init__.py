"""Batches → a trained dictionary.

``run.py`` prepares a run: its data (``reading.py``), its dictionary, filled by an init
(``inits/``), and its loss (``objective.py``, ``helpers/``). ``train.py`` is the training loop;
``step.py`` makes a step, with the hand-written gradient (``fast/``) where it applies.
``checkpoint.py`` saves and resumes bit for bit. Nothing here runs a language model.
"""
