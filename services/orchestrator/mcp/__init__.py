"""The MCP server (ORC-5): nine tools, resources and a prompt over the contracts of the orchestrator and the knowledge base.

The way of a call: ``edge`` (HTTP, bearer) → ``server`` (the protocol) → ``links`` (the chain) → a handler in ``tools_*`` or ``resources`` → the contract.
Only ``server`` imports the ``mcp`` package, which takes about a second: ``edge`` loads it on the first request.
"""
