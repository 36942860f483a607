"""revithion-stems: scripts that run inside a DAW. Nothing is public yet; see the README beside this package."""
