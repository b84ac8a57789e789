"""Evidence about numbers: what they are exactly, how far rounding may move them, and what a difference looks like."""
