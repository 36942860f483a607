"""The command line: a door to the same functions that Python callers use."""
