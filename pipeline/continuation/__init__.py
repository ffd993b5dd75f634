"""Bring what earlier runs made, or others, into a run: fetched, checked, and published under the pipeline's names."""
