"""Architectures of our own networks, in PyTorch, and the band tables and windows that they are built on.

Nothing here knows files, datasets or devices: `training` makes weights for these, `engines` run them.
"""
