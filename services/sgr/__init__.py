"""Schema-guided answers and documents made from them."""
