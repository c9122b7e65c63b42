"""Search and documents."""
