"""What every stage shares: files, corpora, errors, command lines."""
