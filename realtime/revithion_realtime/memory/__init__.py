"""What the processes of a session share: rings of frames, moves of controls, a board of figures."""
