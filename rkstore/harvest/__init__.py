"""Text → tokens → model → activations → a store: the only place where a language model runs.

``text/`` reads documents, ``tokens.py`` cuts them into blocks, ``load.py`` loads a model,
``capture/`` hooks into it and checks that the output stays the same, ``model.py`` turns blocks into
activations, and ``run.py`` writes those to a store, shard by shard as ``engines/`` compute them.
``cost.py`` estimates the cost beforehand, and ``settings.py`` holds the options. Nothing is
imported here, so that the command line reads the options without importing torch.
"""
