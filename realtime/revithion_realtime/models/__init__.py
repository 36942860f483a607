"""Models that play live, behind one interface, and what goes around each."""
