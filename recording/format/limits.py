"""Sizes and bounds of the container. Source: docs/recording-format.md, Layout and Records."""

from __future__ import annotations

from typing import Final

CORE_LEN: Final = 96
CORE_LEN_MAX: Final = 4096
COMMITMENT_LEN: Final = 32
SLOTS_HEADER_LEN: Final = 8  # slots_len, slots_generation
SLOTS_LEN_MAX: Final = 65_536
BODY_ALIGNMENT: Final = 4096  # the body starts on a page, so that record writes never share one with the head

MAX_SLOTS: Final = 16
GENERATION_MAX: Final = 0xFFFFFFFF
SIDECAR_HEADER_LEN: Final = 32  # magic, file_id, generation, length
SIDECAR_LEN_MAX: Final = SIDECAR_HEADER_LEN + SLOTS_LEN_MAX

CHUNK_SIZES: Final = (4096, 8192, 16384, 32768, 65536)
DEFAULT_CHUNK_SIZE: Final = 8192
TAG_LEN: Final = 16
INNER_HEADER_LEN: Final = 16

MAX_SEGMENT_BYTES: Final = 1 << 30
MAX_SEGMENT_SECONDS: Final = 4 * 3600
# An AUDIO record closes after this much audio at the latest: it is part of the stated loss bound.
RECORD_MS: Final = 500

SECTOR: Final = 512  # what a disk writes as a unit; a torn write leaves zeros from such an offset on

JSON_MAX: Final = 65_536 - INNER_HEADER_LEN
