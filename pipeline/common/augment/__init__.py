"""Changes to sentence pairs while they are read, so that a model meets text as people write it."""
