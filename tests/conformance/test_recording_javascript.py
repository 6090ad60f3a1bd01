"""Two implementations, one format: what Python writes Node reads, and the reverse."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from recording.format.content import EventKind, RecordingEvent
from recording.format.record import RecordType
from recording.reader import open_recording
from recording.unlock import SlotKey
from recording.verify import verify
from support import node
from support.crec import DEK, META, ramp, segment_writer

KEK = b"K" * 32
KEY_ID = hmac.digest(KEK, b"id", "sha256")[:8].hex().encode()


@pytest.mark.parametrize("chunk_size", [4096, 8192, 65536])
def test_node_reads_what_python_wrote(tmp_path: Path, chunk_size: int) -> None:
    writer = segment_writer(chunk_size=chunk_size, first_position=12345)
    hold = RecordingEvent(event=EventKind.HOLD, channel=1)
    data = (
        writer.head() + writer.append(ramp(9000)) + writer.event(hold) + writer.append(ramp(77, start=9000))
    )
    data += writer.finish(ended_by="b", reason="bye")
    path = tmp_path / "a.crec"
    path.write_bytes(data)

    found = node.run("crec_reader.mjs", "read", str(path), DEK.hex())

    assert (found["state"], found["good"]) == ("complete", writer.records)
    assert (found["file_id"], found["tenant_handle"]) == ((b"F" * 16).hex(), (b"T" * 16).hex())
    assert found["meta"]["from"] == META.from_
    assert found["meta"]["started_at"] == "2026-03-01T12:00:00.250Z"
    audio = [record for record in found["records"] if record["type"] == RecordType.AUDIO]
    assert b"".join(bytes.fromhex(record["payload"]) for record in audio) == ramp(9077)
    assert audio[0]["position"] == 12345
    (event,) = [record for record in found["records"] if record["type"] == RecordType.EVENT]
    assert (event["position"], bytes.fromhex(event["payload"])) == (12345 + 9000, hold.build())
    assert found["records"][-1]["type"] == RecordType.FINAL


@pytest.mark.parametrize("chunk_size", [4096, 16384])
def test_python_reads_what_node_wrote(tmp_path: Path, chunk_size: int) -> None:
    path = tmp_path / "a.crec"
    node.run("crec_writer.mjs", str(path), DEK.hex(), KEK.hex(), str(chunk_size), "10001")
    key = SlotKey(
        provider=0x7F,
        key_id=KEY_ID,
        unwrap=lambda slot, _context: bytearray(aes_key_unwrap(KEK, slot.wrapped)),
    )

    with open_recording(path, keys=[key]) as opened:
        assert verify(opened).is_complete
        assert (opened.head.core.chunk_size, opened.head.core.segment_no) == (chunk_size, 2)
        assert (opened.meta.from_, opened.meta.rate_hz) == ("sip:anna@example", 8000)
        assert opened.meta.extra == {"written_by": "node"}
        pcm = b"".join(record.payload for record in opened.audio())
        expected = b"".join((frame * 7 % 30011).to_bytes(2, "little") for frame in range(10001))
        assert hashlib.sha256(pcm).digest() == hashlib.sha256(expected).digest()
        assert list(opened.events()) == [(10001, RecordingEvent(event=EventKind.HOLD, channel=1))]
        final = opened.final()
        assert final is not None
        assert (final[0], final[1].reason) == (10001, "bye")


def test_a_missing_node_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match="node"):
        node.run("crec_reader.mjs", "vectors", str(tmp_path))
