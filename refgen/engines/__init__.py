"""The ways to compute the network that model.py defines."""
