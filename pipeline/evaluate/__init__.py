"""Judging models: quality, speed and size on test sets, and the report of a run."""
