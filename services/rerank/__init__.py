"""Reranking: a second, closer look at the best candidates."""
