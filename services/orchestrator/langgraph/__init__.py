"""LangGraph's checkpointer on the event log. Needs the extra ``langgraph``; nothing of the product imports this package."""

from services.orchestrator.langgraph.checkpointer import EventLogSaver
from services.orchestrator.langgraph.opening import open_blocking_saver, open_saver, open_saver_on
from services.orchestrator.langgraph.thread_log import ThreadLog

__all__ = ["EventLogSaver", "ThreadLog", "open_blocking_saver", "open_saver", "open_saver_on"]
