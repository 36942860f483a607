"""revithion-stems: daemon, wire protocol and DAW adapters. Nothing is public yet; see the README beside this package."""
