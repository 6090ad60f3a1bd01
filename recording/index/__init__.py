"""The catalogue of recordings. Imported as `recording.index`; its modules are its own affair."""

from recording.index.entry import (
    NO_PARTIES,
    IndexEntry,
    IndexKey,
    IndexState,
    IndexUnavailableError,
    SealedParties,
    utc_hour,
)
from recording.index.store import RecordingIndex

__all__ = [
    "NO_PARTIES",
    "IndexEntry",
    "IndexKey",
    "IndexState",
    "IndexUnavailableError",
    "RecordingIndex",
    "SealedParties",
    "utc_hour",
]
