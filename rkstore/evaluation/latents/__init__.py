"""Quality of latents, without a language model as judge: each number beside its chance level.

``matching.py`` compares the latents of two seeds, ``probing.py`` finds token classes with k of
them, ``absorption.py`` sees whether one class is split over several or taken over by others,
``spread.py`` says over how many tokens a latent is spread. ``classes/`` has the token classes, by
``text.py``, which knows the characters of each token. ``sample.py`` chooses rows, ``features.py``
has what a probe may read of them, and ``quality.py`` does all of it for some dictionaries.
"""
