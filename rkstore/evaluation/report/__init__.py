"""Tables and pictures of evaluations."""
