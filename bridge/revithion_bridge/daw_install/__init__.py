"""Our scripts put into DAWs and taken out again."""
