"""PostToolUse with asyncRewake: wakes the session when a job that it started or read has ended, or raises an alert.

    wake.py end | alert

One process waits for the end, another for alerts, since waking ends the process: exit code 2 with a few lines on stderr.
What this session has been told already, by a tool's answer or by waking, is claimed with a file in the job's folder, so
that nothing is said twice. A process ends with the client, with the job's folder, and when there is nothing left to say.
"""

from __future__ import annotations

import sys

sys.path.append(__file__.rpartition("/hooks/")[0])
from mcp_server.jobs.news import follow

if __name__ == "__main__":
    text = follow(sys.stdin.read(), sys.argv[1])
    if text:
        sys.stderr.write(text)
        sys.exit(2)
