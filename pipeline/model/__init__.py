"""The translation model: its configuration, its maths, its vocabulary, its search and its file formats."""
