"""Alembic revisions of the identity tables, oldest first; append-only."""
