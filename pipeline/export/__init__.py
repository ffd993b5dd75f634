"""Putting a finished model together for those who use it."""
