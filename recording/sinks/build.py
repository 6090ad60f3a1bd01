"""The sink from its settings. boto3 is loaded only where a bucket is asked for."""

from __future__ import annotations

from typing import assert_never

from recording.observer import RecordingObserver
from recording.settings import LocalSinkSettings, RecordingSettings, S3SinkSettings
from recording.sinks.local import LocalSink
from recording.sinks.sink import Sink


def build_sink(settings: RecordingSettings, *, observer: RecordingObserver | None = None) -> Sink:
    """Where the recordings of this configuration lie. No request is sent.

    Raises:
        SinkRefusedError: says which setting cannot be used.
    """
    match settings.sink:
        case LocalSinkSettings():
            return LocalSink(settings.directory)
        case S3SinkSettings() as s3:
            from recording.sinks.s3 import S3Sink  # noqa: PLC0415  # boto3 takes a second to load

            return S3Sink(s3, observer=observer)
        case _:
            assert_never(settings.sink)
