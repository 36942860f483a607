"""What people hold a session by: terminal, MIDI, scenes, recorder, file source."""
