"""Durable tasks: domain, event log, scheduler, leases, approvals, executors."""
