"""revithion-stems: daemon, wire protocol, DAW adapters. Nothing is public yet; see the README beside this package."""
