"""What tests of faulty object stores put, and how they see a put fail."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from recording.sinks.s3 import S3Sink
from recording.sinks.sink import ObjectName, SinkError

NAME: Final = ObjectName(tenant_handle=b"T" * 16, file_id=b"F" * 16, started_hour=datetime.now(UTC))
CONTENT: Final = b"ciphertext" * 100


def fails(sink: S3Sink, source: Path, kind: type[SinkError], reason: str) -> SinkError:
    """`put` fails so, and the file is still there, whole."""
    content = source.read_bytes()
    with pytest.raises(SinkError) as caught:
        sink.put(source, NAME)
    assert (type(caught.value), caught.value.reason_label) == (kind, reason), caught.value
    assert source.read_bytes() == content
    return caught.value
