"""Subjects are the implementations under test, as the kit sees them. protocol.py lists the questions; the other files
connect to subjects.
"""
