"""The command line of the daemon; the core names these commands as text, and imports them when they are used."""
