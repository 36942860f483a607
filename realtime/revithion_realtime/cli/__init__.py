"""The command line of the live preview; the core names it as text."""
