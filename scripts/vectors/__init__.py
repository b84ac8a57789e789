"""Makers of the kit's cases, one file a level: `cases()` gives them, and `tensors` of forward cases. scripts/make_vectors.py writes them."""
