"""The gradient by hand, where it is covered."""
