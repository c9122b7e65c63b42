"""Search and documents, version 1."""
