"""Embedding: text to unit vectors on the CPU."""
