"""Quantizing a model to eight bits."""
