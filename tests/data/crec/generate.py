"""Writes the test vectors of the container beside itself: `python tests/data/crec/generate.py`.

Nothing of the product is used: the bytes come from docs/recording-format.md by a second way. All keys and ids are
fixed,
so that the same files come out every time; a test compares them.

A vector is a text head, an empty line, then the recording. Lines of the head:

    title    what was done to the file
    expect   the verdict, or `refused` and the reason
    dek      data key to open it with; or
    kek      key-encryption key (AES key wrap) that the reader is configured with; its id is derived from it
    sidecar  a slots sidecar, hex; several are given highest generation first
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

sys.path.insert(0, str(Path(__file__).parent))
from collision import collide

DIRECTORY = Path(__file__).parent
SUFFIX = ".vector"

MAGIC = b"\x89CREC\r\n\x1a"
DEK = bytes(range(32))
# Found by trying numbers until record 0 of the collision, decrypted under it, has a lawful inner header as well.
SECOND_DEK = b"second data key          1048238"
KEK = b"K" * 32
OLD_KEK = b"O" * 32
FILE_ID, SALT, TENANT = b"F" * 16, b"S" * 32, b"T" * 16
CHUNK = 4096
RECORD = CHUNK + 16
AUDIO, META, EVENT, DATA, FINAL = 1, 2, 3, 4, 0x7F
LOCAL_DEV, AWS_KMS = 0x7F, 1
FIRST = 4096  # offset of record 0


def derive(dek: bytes, label: bytes, core: bytes) -> bytes:
    """RFC 5869, one block: extract with the salt, expand with the label and the hash of the core header."""
    secret = hmac.digest(core[32:64], dek, "sha256")
    return hmac.digest(secret, b"crec/v1/" + label + b"\0" + hashlib.sha256(core).digest() + b"\1", "sha256")


def core_header(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "magic": MAGIC, "major": 1, "minor": 0, "suite": 1, "core_len": 96, "file_id": FILE_ID, "salt": SALT,
        "tenant": TENANT, "chunk_size": CHUNK, "segment_no": 0, "flags": 0, "reserved": 0,
    }  # fmt: skip
    extension = changes.pop("extension", b"")
    assert isinstance(extension, bytes)
    fields |= {"core_len": 96 + len(extension)} | changes
    return struct.pack(">8sBBHI16s32s16sIIII", *fields.values()) + extension


def key_id(kek: bytes) -> bytes:
    return hmac.digest(kek, b"id", "sha256")[:8].hex().encode()


def slot(kek: bytes = KEK, dek: bytes = DEK, *, provider: int = LOCAL_DEV) -> bytes:
    wrapped = aes_key_wrap(kek, dek)
    return struct.pack(">HHH", provider, len(key_id(kek)), len(wrapped)) + key_id(kek) + wrapped


def slots(*each: bytes) -> bytes:
    return struct.pack(">H", len(each)) + b"".join(each)


def sidecar(generation: int, content: bytes, *, file_id: bytes = FILE_ID) -> bytes:
    return b"\x89CRES\r\n\x1a" + file_id + struct.pack(">II", generation, len(content)) + content


def head(
    core: bytes, area: bytes = b"", *, dek: bytes = DEK, slots_len: int | None = None, generation: int = 0
) -> bytes:
    length = -(len(core) + 40) % 4096 if slots_len is None else slots_len
    commitment = derive(dek, b"commit", core)
    return core + commitment + struct.pack(">II", length, generation) + area.ljust(length, b"\0")


def inner(
    kind: int, payload: bytes, position: int, *, chunk: int = CHUNK, length: int | None = None
) -> bytes:
    stated = len(payload) if length is None else length
    return (struct.pack(">BBHIQ", kind, 0, 0, stated, position) + payload).ljust(chunk, b"\0")


def nonce(index: int, *, final: bool) -> bytes:
    return struct.pack(">BBHQ", 1, final, 0, index)


def seal(
    index: int, plain: bytes, *, final: bool | None = None, core: bytes | None = None, dek: bytes = DEK
) -> bytes:
    body = AESGCM(derive(dek, b"body", core_header() if core is None else core))
    is_final = plain[0] == FINAL if final is None else final
    return body.encrypt(nonce(index, final=is_final), plain, None)


def meta(index: int = 0) -> bytes:
    return seal(index, inner(META, b"{}", 0))


def audio(index: int) -> bytes:
    """Audio of record `index`, when records 1, 2, ... are all audio."""
    return seal(index, inner(AUDIO, bytes([index]) * 4080, 2040 * (index - 1)))


def final(index: int, *, count: int | None = None) -> bytes:
    payload = struct.pack(">Q", index + 1 if count is None else count) + b"{}"
    return seal(index, inner(FINAL, payload, 2040 * (index - 1)))


def flip(data: bytes, offset: int, mask: int = 1) -> bytes:
    return data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]


HEAD = head(core_header())
SHORT = HEAD + meta() + audio(1) + final(2)
LONG = HEAD + meta() + audio(1) + audio(2) + final(3)
OPEN = HEAD + meta() + audio(1) + audio(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One vector; `name` is its file name without suffix."""

    name: str
    title: str
    expect: str
    data: bytes = field(repr=False)
    dek: bytes | None = DEK
    kek: bytes | None = None
    sidecars: tuple[bytes, ...] = ()

    def text(self) -> bytes:
        lines = ["crec test vector 1", f"title: {self.title}", f"expect: {self.expect}"]
        if self.kek is not None:
            lines.append(f"kek: {self.kek.hex()}")
        elif self.dek is not None:
            lines.append(f"dek: {self.dek.hex()}")
        lines += [f"sidecar: {data.hex()}" for data in self.sidecars]
        return "\n".join(lines).encode() + b"\n\n" + self.data


def vector(name: str, expect: str, title: str, data: bytes, **more: object) -> Vector:
    return Vector(name=name, title=title, expect=expect, data=data, **more)  # type: ignore[arg-type]


def whole(core: bytes, *, chunk: int = CHUNK, **more: object) -> bytes:
    """META, one full AUDIO and FINAL under a core header of one's own."""
    full = chunk - 16
    return b"".join((
        head(core, **more),  # type: ignore[arg-type]
        seal(0, inner(META, b"{}", 0, chunk=chunk), core=core),
        seal(1, inner(AUDIO, bytes(full), 0, chunk=chunk), core=core),
        seal(2, inner(FINAL, struct.pack(">Q", 3) + b"{}", full // 2, chunk=chunk), core=core),
    ))  # fmt: skip


def good() -> Iterator[Vector]:
    seed = HEAD + meta() + seal(1, inner(AUDIO, bytes(4080), 0)) + final(2)
    yield vector("seed", "complete", "the seed of the specification", seed)
    yield vector(
        "chunk-8192", "complete", "chunks of 8,192 bytes", whole(core_header(chunk_size=8192), chunk=8192)
    )
    yield vector("minor-later", "complete", "a later minor version", whole(core_header(minor=9)))
    longer = core_header(extension=b"fields of a later minor version.")
    yield vector("core-longer", "complete", "a core header with more fields", whole(longer))
    longest = core_header(extension=bytes(4000))
    yield vector("core-longest", "complete", "the longest core header", whole(longest))
    yield vector(
        "reserved-set",
        "complete",
        "reserved bytes that are not zero",
        whole(core_header(reserved=0xFFFFFFFF)),
    )
    yield vector(
        "generation-flipped",
        "complete",
        "slots_generation, which the commitment leaves out",
        flip(SHORT, 135),
    )
    unknown = HEAD + meta() + seal(1, inner(0x42, b"later", 0)) + final(2)
    yield vector("type-unknown", "complete", "a record of an unknown type", unknown)
    padded = inner(AUDIO, bytes(2), 0)[:-1] + b"\xff"
    yield vector(
        "padding-set", "complete", "padding that is not zero", HEAD + meta() + seal(1, padded) + final(2)
    )
    yield vector("final-only", "complete", "no audio", HEAD + meta() + final(1))


def head_fields() -> Iterator[Vector]:
    cases = [
        ("magic", 0, "refused not-a-recording"), ("magic-newline", 5, "refused not-a-recording"),
        ("major", 8, "refused version major"), ("minor", 9, "refused wrong-key"),
        ("suite", 11, "refused version suite"), ("core-len", 15, "refused malformed slots_len"),
        ("file-id", 16, "refused wrong-key"), ("salt", 63, "refused wrong-key"), ("tenant", 64, "refused wrong-key"),
        ("chunk-size", 83, "refused malformed chunk_size"), ("segment-no", 87, "refused wrong-key"),
        ("flags", 91, "refused version flags"), ("reserved", 95, "refused wrong-key"),
        ("commitment-first", 96, "refused wrong-key"), ("commitment-last", 127, "refused wrong-key"),
        ("slots-len", 131, "refused malformed slots_len"),
    ]  # fmt: skip
    for name, offset, expect in cases:
        yield vector(f"flip-{name}", expect, f"a bit flipped at byte {offset}", flip(SHORT, offset))
    doubled = SHORT[:80] + struct.pack(">I", 8192) + SHORT[84:]
    yield vector("chunk-size-other", "refused wrong-key", "chunk_size set to another allowed value", doubled)
    values = [
        ("major-0", 8, b"\0", "version major"), ("major-2", 8, b"\2", "version major"),
        ("suite-reserved", 10, b"\0\2", "version suite"), ("suite-unknown", 10, b"\xff\xff", "version suite"),
        ("flags-high", 88, b"\x80\0\0\0", "version flags"),
        ("core-len-95", 12, struct.pack(">I", 95), "malformed core_len"),
        ("core-len-4097", 12, struct.pack(">I", 4097), "malformed core_len"),
        ("core-len-huge", 12, b"\xff" * 4, "malformed core_len"),
        ("slots-len-unaligned", 128, struct.pack(">I", 3959), "malformed slots_len"),
        ("slots-len-too-long", 128, struct.pack(">I", 3960 + 65536), "malformed slots_len"),
        ("chunk-size-0", 80, bytes(4), "malformed chunk_size"),
        ("chunk-size-2048", 80, struct.pack(">I", 2048), "malformed chunk_size"),
        ("chunk-size-131072", 80, struct.pack(">I", 131072), "malformed chunk_size"),
    ]  # fmt: skip
    for name, offset, value, expect in values:
        data = SHORT[:offset] + value + SHORT[offset + len(value) :]
        yield vector(name, f"refused {expect}", f"{value.hex()} at byte {offset}", data)
    yield vector("foreign", "refused not-a-recording", "a WAV file", b"RIFF\x24\0\0\0WAVEfmt " + bytes(100))
    yield vector("empty", "refused not-a-recording", "no bytes at all", b"")
    yield vector("head-cut", "refused head-cut", "the file ends within its head", HEAD[:2000])


def records() -> Iterator[Vector]:
    a, b = audio(1), audio(2)
    start = HEAD + meta()
    too_long = seal(1, inner(AUDIO, bytes(4080), 0, length=4081))
    yield vector(
        "payload-too-long", "corrupt 1", "payload_len past the chunk", start + too_long + b + final(3)
    )
    yield vector("reordered", "corrupt 1", "records 1 and 2 exchanged", start + b + a + final(3))
    yield vector("duplicated", "corrupt 2", "record 1 twice", start + a + a + b + final(3))
    yield vector("dropped", "corrupt 1", "record 1 taken out", start + b + final(3))
    yield vector("final-missing", "incomplete 3", "the file ends with audio", OPEN)
    yield vector(
        "final-moved", "corrupt 2", "FINAL put before the last audio record", start + a + final(3) + b
    )
    yield vector(
        "final-early",
        "corrupt 3",
        "FINAL sealed at record 2, audio behind it",
        start + a + final(2) + audio(3),
    )
    yield vector(
        "final-twice", "corrupt 3", "a second FINAL, each with its own count", start + a + final(2) + final(3)
    )
    yield vector("final-repeated", "corrupt 3", "the FINAL record twice", SHORT + final(2))
    yield vector("final-count-low", "corrupt 3", "FINAL counts one less", start + a + final(2, count=2))
    yield vector("final-count-high", "corrupt 3", "FINAL counts one more", start + a + final(2, count=4))
    no_count = seal(2, inner(FINAL, b"{}", 2040))
    yield vector("final-without-count", "corrupt 3", "FINAL too short for its count", start + a + no_count)
    marked = seal(1, inner(AUDIO, bytes(4080), 0), final=True)
    yield vector("final-bit-on-audio", "corrupt 1", "AUDIO sealed with final = 1", start + marked + final(2))
    unmarked = seal(2, inner(FINAL, struct.pack(">Q", 3) + b"{}", 2040), final=False)
    yield vector("final-without-bit", "corrupt 2", "FINAL sealed with final = 0", start + a + unmarked)
    yield vector("no-records", "corrupt 0", "a head alone", HEAD)
    yield vector(
        "first-not-meta",
        "corrupt 0",
        "record 0 is AUDIO",
        HEAD + seal(0, inner(AUDIO, bytes(80), 0)) + final(1),
    )
    yield vector("first-zero", "corrupt 0", "record 0 is zeros", HEAD + bytes(RECORD))
    other = seal(1, inner(AUDIO, bytes(4080), 0), dek=SECOND_DEK)
    yield vector(
        "record-of-another-key", "corrupt 1", "record 1 sealed under another key", start + other + final(2)
    )


def tails() -> Iterator[Vector]:
    for name, tail in (
        ("byte", b"\1"),
        ("zero-byte", b"\0"),
        ("record", audio(4)),
        ("zero-record", bytes(RECORD)),
    ):
        yield vector(
            f"behind-final-{name}", "corrupt 4", f"a {name} follows FINAL".replace("-", " "), LONG + tail
        )
    yield vector("ragged", "incomplete 3", "part of a record at the end", OPEN + final(3)[:-1])
    yield vector("ragged-byte", "incomplete 3", "one byte of a record at the end", OPEN + final(3)[:1])
    yield vector("ragged-first", "corrupt 0", "part of record 0 and no more", HEAD + meta()[:-1])
    yield vector(
        "zero-records", "incomplete 3", "two records of zeros and a few more", OPEN + bytes(2 * RECORD + 100)
    )
    torn = (FIRST + 2 * RECORD) // 512 * 512 + 1024
    yield vector(
        "torn-on-sector",
        "incomplete 2",
        "record 2 is zeros from a sector on",
        OPEN[:torn].ljust(len(OPEN), b"\0"),
    )
    yield vector(
        "torn-and-zeros",
        "incomplete 2",
        "the same, and more zeros",
        OPEN[:torn].ljust(len(OPEN) + RECORD, b"\0"),
    )
    within = len(OPEN) - 40  # the last sector starts 48 bytes before the end
    yield vector(
        "zeros-in-sector",
        "corrupt 2",
        "the last 40 bytes are zeros, within a sector",
        OPEN[:within] + bytes(40),
    )
    hole = HEAD + meta() + bytes(RECORD) + audio(2) + final(3)
    yield vector("zero-hole", "corrupt 1", "record 1 is zeros, others follow", hole)
    yield vector(
        "flip-last-record", "corrupt 2", "a bit in the last record of a cut file", flip(OPEN, len(OPEN) - 1)
    )
    yield vector("flip-final", "corrupt 3", "a bit in FINAL", flip(LONG, len(LONG) - RECORD))
    yield vector("flip-first-record", "corrupt 0", "a bit in META", flip(LONG, FIRST))
    yield vector(
        "flip-then-zeros",
        "corrupt 2",
        "a bit in record 2, zeros behind it",
        flip(OPEN, len(OPEN) - 2000) + bytes(8192),
    )


def keys() -> Iterator[Vector]:
    def file(*each: bytes) -> bytes:
        return head(core_header(), slots(*each)) + meta() + audio(1) + final(2)

    foreign = slot(dek=bytes(32))
    damaged = flip(slot(), 40)
    yield vector("dek-wrong", "refused wrong-key", "another data key", SHORT, dek=bytes(32))
    yield vector("slot", "complete", "one slot", file(slot()), kek=KEK)
    yield vector("slot-second", "complete", "the second slot is ours", file(slot(OLD_KEK), slot()), kek=KEK)
    yield vector("slot-none", "refused missing-slot", "no slot", SHORT, kek=KEK)
    yield vector(
        "slot-unknown-key", "refused missing-slot", "a slot of another key", file(slot(OLD_KEK)), kek=KEK
    )
    other_provider = file(slot(provider=AWS_KMS))
    yield vector(
        "slot-other-provider", "refused missing-slot", "our key id, another provider", other_provider, kek=KEK
    )
    yield vector(
        "slot-foreign", "refused wrong-key", "the slot of another file, same key", file(foreign), kek=KEK
    )
    yield vector(
        "slot-foreign-and-own", "complete", "a foreign slot before ours", file(foreign, slot()), kek=KEK
    )
    yield vector(
        "slot-damaged", "refused wrong-key", "a bit flipped in the wrapped key", file(damaged), kek=KEK
    )
    bad_count = head(core_header(), b"\0\x11") + meta() + final(1)
    yield vector("slots-count-17", "refused missing-slot", "more slots than allowed", bad_count, kek=KEK)
    new = sidecar(2, slots(slot()))
    yield vector(
        "sidecar",
        "complete",
        "rewrapped: the new slot in a sidecar",
        file(slot(OLD_KEK)),
        kek=KEK,
        sidecars=(new,),
    )
    garbage = bytes(range(1, 200))
    for name, bad in (
        ("garbage", garbage),
        ("foreign-file", sidecar(9, slots(slot()), file_id=b"X" * 16)),
        ("foreign-slot", sidecar(9, slots(foreign))),
        ("length-wrong", sidecar(9, slots(slot())) + b"\0"),
    ):
        data = file(slot())
        yield vector(
            f"sidecar-{name}", "complete", f"a useless sidecar ({name})", data, kek=KEK, sidecars=(bad,)
        )
        last = vector(f"sidecar-{name}-then-good", "complete", f"a useless sidecar ({name}) of a higher generation",
                      file(slot(OLD_KEK)), kek=KEK, sidecars=(bad, new))  # fmt: skip
        yield last
    yield vector(
        "collision-first-key", "complete", "record 0 is authentic under two keys: the right one", collision()
    )
    yield vector(
        "collision-second-key", "refused wrong-key", "record 0 is authentic under two keys: the other one", collision(),
        dek=SECOND_DEK,
    )  # fmt: skip


def linked(
    number: int,
    ids: list[bytes],
    text: dict[str, object],
    body: list[tuple[int, bytes, int]],
    start: int,
    end: int,
) -> bytes:
    """Segment `number` of several: META with `text`, the records of `body`, FINAL at `end`."""
    core = core_header(file_id=ids[number], salt=ids[number] * 2, segment_no=number)
    last = number == len(ids) - 1
    about = {"v": 1, **text, "segment": number, "previous": ids[number - 1].hex() if number else None}
    close = json.dumps({"next": None if last else ids[number + 1].hex()}).encode()
    records = [(META, json.dumps(about).encode(), start), *body]
    records.append((FINAL, struct.pack(">Q", len(records) + 1) + close, end))
    sealed = [seal(index, inner(kind, data, at), core=core) for index, (kind, data, at) in enumerate(records)]
    return head(core) + b"".join(sealed)


def series() -> Iterator[Vector]:
    """A recording of three segments, and a document of two: each file good by itself, and linked to the next."""
    ids = [bytes([0xA0 + number]) * 16 for number in range(3)]
    text: dict[str, object] = {
        "kind": "audio", "recording": "ab" * 16, "rate_hz": 8000, "channels": 1, "layout": "mixed",
        "sample_format": "s16le", "started_at": "2026-03-01T12:00:00.250Z",
    }  # fmt: skip
    pcm = b"".join(struct.pack("<h", frame * 7 % 30011) for frame in range(5000))
    for number, (start, end) in enumerate(((0, 2040), (2040, 4000), (4000, 5000))):
        part = [(AUDIO, pcm[2 * start : 2 * end], start)]
        data = linked(number, ids, text, part, start, end)
        yield vector(f"segment-{number}", "complete", f"segment {number} of a recording of three", data)
    document = b"The caller asked for a new appointment. " * 150
    two = [bytes([0xD0 + number]) * 16 for number in range(2)]
    text = {
        "kind": "artefact", "recording": "cd" * 16, "parent": "ab" * 16, "media_type": "text/plain",
        "sha256": hashlib.sha256(document).hexdigest(), "started_at": "2026-03-02T08:00:00.000Z",
    }  # fmt: skip
    for number, (start, end) in enumerate(((0, 4080), (4080, len(document)))):
        data = linked(number, two, text, [(DATA, document[start:end], start)], start, end)
        yield vector(f"artefact-{number}", "complete", f"segment {number} of a document of two", data)


def collision() -> bytes:
    core = core_header()
    two = [derive(dek, b"body", core) for dek in (DEK, SECOND_DEK)]
    record = collide(two[0], two[1], nonce(0, final=False), meta()[:CHUNK], free_block=255)
    return HEAD + record + audio(1) + final(2)


def vectors() -> list[Vector]:
    return [*good(), *head_fields(), *records(), *tails(), *keys(), *series()]


def main() -> None:
    for old in DIRECTORY.glob(f"*{SUFFIX}"):
        old.unlink()
    sums = []
    for each in sorted(vectors(), key=lambda vector: vector.name):
        text = each.text()
        (DIRECTORY / f"{each.name}{SUFFIX}").write_bytes(text)
        sums.append(f"{hashlib.sha256(text).hexdigest()}  {each.name}{SUFFIX}\n")
    (DIRECTORY / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main()
