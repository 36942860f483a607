"""The strips of the stems: ramps, faders, equalisers, filters; runs in the audio callback."""
