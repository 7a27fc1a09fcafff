"""``python -m mcp_server.cli`` is ``mlx-training``."""

import sys

from mcp_server.cli import main

sys.exit(main())
