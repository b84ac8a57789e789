"""Judging turns answers into verdicts. lab.py holds everything a check may use. The other files compare, weigh evidence
and sum up.
"""
