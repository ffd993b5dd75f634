"""Word alignment, and the lexical shortlist that comes of it."""
