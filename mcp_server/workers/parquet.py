"""The rows of a Parquet file as JSON lines on standard output. Needs pyarrow."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from mcp_server.platform.interpreter import install


def main() -> None:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        sys.exit(f"pyarrow is not installed; {install('pyarrow>=20')}, or export the data as JSONL")
    try:
        with parquet.ParquetFile(sys.argv[1]) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    # Dates and decimals have no JSON of their own; text is what a model can learn.
                    print(json.dumps(row, default=str))
    except BrokenPipeError:
        os._exit(1)  # whoever asked went away
    except Exception as error:
        # pyarrow raises a dozen types; all mean that this is not a Parquet file it can read.
        sys.exit(f"it is not a Parquet file that pyarrow can read: {' '.join(str(error).split())[:200]}")


if __name__ == "__main__":
    main()
