"""Makers of the kit's cases, one file for each kind: `cases()` gives them, and `tensors` of forward cases.
scripts/make_vectors.py writes them.
"""
