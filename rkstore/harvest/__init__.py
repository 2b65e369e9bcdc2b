"""Text → tokens → model → activations → a store: the one time that a language model runs.

``text/`` reads documents, ``tokens.py`` cuts them into blocks, ``load.py`` loads a model,
``hooks.py`` gives it hooks and checks that it computes the same with them, ``model.py`` turns
blocks into activations, and ``run.py`` writes those to a store. ``cost.py`` measures beforehand
what that will take, and ``settings.py`` holds the options. Nothing is imported here: the command
line reads the options without waiting for torch.
"""
