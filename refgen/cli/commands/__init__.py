"""The commands, a file each: `add(commands)` declares it, `run(options)` does it and may return an exit code.

`refgen.cli` finds the files by itself, so a new command is a new file here.
"""
