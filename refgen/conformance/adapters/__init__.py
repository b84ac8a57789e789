"""Adapters: our side of the wire to a subject, one file a kind. Each is a `Subject` of subject.py."""
