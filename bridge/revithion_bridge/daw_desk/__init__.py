"""What DAWs ask the daemon for through the mailbox, and faders in them."""
