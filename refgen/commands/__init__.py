"""One file a command of the command line: `add(commands)` declares it, `run(options)` does it."""
