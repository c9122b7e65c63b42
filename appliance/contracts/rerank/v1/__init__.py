"""Reranking, version 1."""
