"""Batches → a trained dictionary.

``run.py`` prepares a run: what it reads (``reading.py``), its dictionary, filled by an init
(``inits/``), and what it minimises (``objective.py``, ``helpers/``). ``train.py`` is the one loop;
``step.py`` makes a step, with the gradient by hand (``fast/``) where it is covered.
``checkpoint.py`` saves and resumes to the same bits. Nothing here runs a language model.
"""
