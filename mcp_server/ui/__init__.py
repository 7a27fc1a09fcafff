"""The local page: all jobs live, on this machine alone, only to read."""
