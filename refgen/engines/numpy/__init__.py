"""Fast NumPy."""
