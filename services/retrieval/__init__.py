"""Documents in, passages out: ingest, chunks, two indexes, hybrid search."""
