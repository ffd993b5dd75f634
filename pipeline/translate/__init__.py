"""Bulk translation: cutting a corpus into chunks, translating them, choosing hypotheses, joining chunks."""
