"""``python -m mcp_server`` starts the MCP server."""

from mcp_server.server import main

main()
