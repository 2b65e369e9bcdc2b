"""Text → tokens → model → activations → a store."""
