"""The MCP tools. Each module is thin: typed arguments, one service call, one typed result."""
