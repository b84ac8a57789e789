"""Makers of the kit's cases, one file a kind: `cases()` gives them, and `tensors` of forward cases. scripts/make_vectors.py writes them."""
