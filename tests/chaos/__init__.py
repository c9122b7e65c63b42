"""The orchestrator under faults: seeded plans, real processes that are killed, stopped, cut off and damaged, and a checker that reads the log afterwards."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # its handlers, run in a child between fork and exec, kill some children
