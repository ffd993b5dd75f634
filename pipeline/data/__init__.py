"""Data sets: from a name in the training config to files of one sentence per line."""
