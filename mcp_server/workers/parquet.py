"""The rows of a Parquet file as JSON lines on standard output. Needs pyarrow (the extra ``parquet``)."""

from __future__ import annotations

import importlib.util
import json
import os
import sys


def main() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        sys.exit(
            "pyarrow is not installed; install it with `uv sync --extra parquet` (or pip install 'mlx-training[parquet]'), "
            "or export the data as JSONL"
        )
    from pyarrow import ArrowInvalid, parquet

    try:
        with parquet.ParquetFile(sys.argv[1]) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    # Dates and decimals have no JSON of their own; text is what a model can learn.
                    print(json.dumps(row, default=str))
    except ArrowInvalid as error:
        sys.exit(f"not a Parquet file: {error}")
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
