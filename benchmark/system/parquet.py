"""Tables of scores and gradients on disk, each with a checksum of its file. Imports no torch."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.system.checksums import BLANK, add_checksum, verify_checksum
from benchmark.system.errors import UserError
from benchmark.system.files import write_atomic

_KEY = b"checksum"


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write `frame` without its index to `path`, whole or not at all; any reader of parquet reads it."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: BLANK})
    write_atomic(path, add_checksum(buffer.getvalue()))


def read_parquet(path: Path, **options: Any) -> pd.DataFrame:
    """The table in `path`, or what `options` of pandas' `read_parquet` select of it, after its checksum was checked.

    Raises:
        UserError: the file is damaged, is no table of ours, or lacks a column that is asked for.
    """
    content = path.read_bytes()
    again = "remove it and run the workflow again"
    verify_checksum(path, content, again)
    try:
        return pd.read_parquet(io.BytesIO(content), **options)
    except Exception as error:  # whatever Arrow's parsers raise
        raise UserError(f"{path}: cannot be read as a table ({error}); {again}") from None
