"""Chat models, version 1."""
