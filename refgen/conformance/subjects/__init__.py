"""Subjects: the implementations under test, as the kit sees them. protocol.py says what can be asked of one; the other files reach them."""
