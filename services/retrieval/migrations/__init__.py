"""Schema changes of the document catalogue, in order; append-only."""
