"""Agents: who answers a turn, with which tools; plugins and MCP servers behind one toolbox."""
