"""Embedding, version 1."""
