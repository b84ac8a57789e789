"""Reports: a run for people and programs, one file for each format. contents.py has the contents of all."""
