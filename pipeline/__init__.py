"""What one task does: files in, files out. Knows nothing of tasks, graphs or engines."""
