"""Changes to the tables of the knowledge base, oldest first."""
