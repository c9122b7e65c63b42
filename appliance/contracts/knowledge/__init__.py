"""What the box has learned."""
