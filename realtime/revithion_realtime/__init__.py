"""revithion-stems: causal live preview. Nothing is public yet; see the README beside this package."""
