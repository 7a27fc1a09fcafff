"""The gate: reads a tool call, works out what it would do, and stops what would cost the user their work."""
