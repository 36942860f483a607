"""Audio devices: whatever calls back for blocks."""
