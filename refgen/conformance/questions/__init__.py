"""Questions: what subjects are asked. A file or folder a kind, each with `checks(lab)`; cases.py reads the stored ones."""
