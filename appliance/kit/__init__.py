"""Plumbing with no domain word in it."""

import os

# gRPC's fork handlers run between fork and exec; they kill some of the children that we start and, at times, the process that starts them (SIGSEGV,
# SIGABRT; measured: one start in ten beside a busy channel). Our children only exec. It is read when grpc is imported, so it stands here.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
