"""The version of this package, as installed."""

from __future__ import annotations

from importlib import metadata

try:
    __version__ = metadata.version("revithion-stems")
except metadata.PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+unknown"
