"""mlx-training: typed MCP tools that run mlx-lm jobs natively on Apple Silicon."""

__version__ = "0.1.0"
