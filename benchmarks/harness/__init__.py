"""What the rows of the benchmark share: how two sides are compared, and what they run on."""
