"""Formats of a report for others than a terminal, one file each: CI servers, badges, browsers, and many runs side by side."""
