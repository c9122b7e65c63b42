"""Names of all benchmarks, one a line, in the order in which ``make bench`` runs them."""

NAMES = ("cold-start", "ingest", "embed", "search-latency", "chat", "gateway", "audit-append", "retrieval-quality", "reader-quality", "event-log", "tasks", "serving", "bundle")

if __name__ == "__main__":
    print("\n".join(NAMES))
