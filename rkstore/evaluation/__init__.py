"""What a dictionary is worth, measured on held-out rows."""
