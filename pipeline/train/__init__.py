"""Training of teachers, backward models and students."""
