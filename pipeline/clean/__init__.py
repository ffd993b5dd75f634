"""Cleaning single data sets, and merging them into one corpus."""
