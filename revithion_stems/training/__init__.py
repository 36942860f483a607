"""Making weights: datasets, augmentation, losses, the training loop, and the export of what comes out.

Needs the extra ``train`` for some of it. Only its own commands import it, and `evaluation`, which reads the datasets.
"""
