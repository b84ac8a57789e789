"""Judging: answers to verdicts. lab.py has what a check may use; the other files compare, weigh evidence and sum up."""
