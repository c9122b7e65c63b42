"""The orchestrator under faults: seeded plans, real processes that are killed, stopped, cut off and damaged, and a checker that reads the log afterwards."""
