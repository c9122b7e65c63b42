"""The knowledge base: what the box has learned, found by meaning, by words and by relations."""
