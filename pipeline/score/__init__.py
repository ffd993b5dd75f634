"""Scoring a corpus with a model, and dropping the pairs it finds worst."""
