"""The command line of the daemon; ``revithion_stems.cli.main`` names these commands as text and imports none of them."""
