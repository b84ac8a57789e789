"""Reports: a run for people and programs, one file a format. contents.py has what all of them say."""
