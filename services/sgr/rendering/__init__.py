"""Documents from data."""
