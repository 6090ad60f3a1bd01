"""Which slots a reader tries, with which keys, and what it says if none fits."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from recording.errors import MissingSlotError, RecordingError, UnwrapError, WrongKeyError
from recording.format.slots import KeySlot, Sidecar, build_area
from recording.keys.provider import KeyContext
from recording.reader import open_recording, open_with_dek
from recording.unlock import SlotKey
from support.crec import DEK, FILE_ID, TENANT, ramp, recording

MINE, OTHER = b"my-key", b"other-key"


class Wrapping:
    """A wrapping that tests can read: the blob is `ok:` and the data key. Counts what it is asked."""

    def __init__(self, failure: RecordingError | None = None) -> None:
        self.asked: list[tuple[KeySlot, KeyContext]] = []
        self.given: list[bytearray] = []
        self.failure = failure

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        self.asked.append((slot, context))
        if self.failure is not None:
            raise self.failure
        if not slot.wrapped.startswith(b"ok:"):
            raise UnwrapError("garbage")
        self.given.append(bytearray(slot.wrapped[3:]))
        return self.given[-1]

    def key(self, *, provider: int = 4, key_id: bytes = MINE) -> SlotKey:
        return SlotKey(provider=provider, key_id=key_id, unwrap=self.unwrap)


def slot(wrapped: bytes = b"ok:" + DEK, *, provider: int = 4, key_id: bytes = MINE) -> KeySlot:
    return KeySlot(provider=provider, key_id=key_id, wrapped=wrapped)


def file_with(*slots: KeySlot) -> io.BytesIO:
    return io.BytesIO(recording(ramp(100), slots_area=build_area(slots)))


def sidecar(*slots: KeySlot, generation: int = 1, file_id: bytes = FILE_ID) -> bytes:
    return Sidecar(file_id=file_id, generation=generation, slots=slots).build()


def test_a_slot_of_a_configured_key_opens_the_file_and_the_data_key_is_wiped() -> None:
    wrapping = Wrapping()
    opened = open_recording(file_with(slot()), keys=[wrapping.key()])
    assert [len(record.payload) for record in opened.audio()] == [200]
    assert wrapping.asked == [(slot(), KeyContext(file_id=FILE_ID, tenant_handle=TENANT))]
    assert wrapping.given == [bytearray(32)]


@pytest.mark.parametrize("foreign", [slot(key_id=OTHER), slot(provider=1), slot(key_id=b"")])
def test_a_slot_of_a_key_that_is_not_configured_is_never_tried(foreign: KeySlot) -> None:
    wrapping = Wrapping()
    with pytest.raises(MissingSlotError):
        open_recording(file_with(foreign), keys=[wrapping.key()])
    assert wrapping.asked == []
    assert open_recording(file_with(foreign, slot()), keys=[wrapping.key()])
    assert len(wrapping.asked) == 1


def test_a_transplanted_slot_is_refused_by_the_commitment_and_the_next_is_tried() -> None:
    wrapping = Wrapping()
    transplanted = slot(b"ok:" + bytes(32))
    with pytest.raises(WrongKeyError, match="1 tried"):
        open_recording(file_with(transplanted), keys=[wrapping.key()])
    assert wrapping.given == [bytearray(32)]
    assert open_recording(file_with(transplanted, slot()), keys=[wrapping.key()])


@pytest.mark.parametrize("wrapped", [b"", b"garbage", b"ok:" + DEK[:31], b"ok:" + DEK + b"\0"])
def test_a_slot_that_holds_no_data_key_is_passed_over(wrapped: bytes) -> None:
    wrapping = Wrapping()
    with pytest.raises(WrongKeyError):
        open_recording(file_with(slot(wrapped)), keys=[wrapping.key()])
    assert open_recording(file_with(slot(wrapped), slot()), keys=[wrapping.key()])


def test_a_key_that_could_not_tell_is_not_called_a_wrong_key() -> None:
    class ServiceDownError(RecordingError):
        pass

    down = Wrapping(ServiceDownError("no answer"))
    with pytest.raises(ServiceDownError):
        open_recording(
            file_with(slot(), slot(b"x", key_id=OTHER)), keys=[down.key(), Wrapping().key(key_id=OTHER)]
        )
    up = Wrapping().key(key_id=OTHER)
    assert open_recording(file_with(slot(), slot(key_id=OTHER)), keys=[down.key(), up])


def test_sidecars_come_before_the_embedded_slots_in_the_order_given() -> None:
    wrapping = Wrapping()
    newest, older = sidecar(slot(b"garbage 2"), generation=2), sidecar(slot(b"garbage 1"))
    open_recording(file_with(slot()), keys=[wrapping.key()], sidecars=[newest, older])
    assert [asked.wrapped for asked, _ in wrapping.asked] == [b"garbage 2", b"garbage 1", b"ok:" + DEK]


def test_the_same_slot_is_tried_once() -> None:
    wrapping = Wrapping()
    with pytest.raises(WrongKeyError):
        open_recording(file_with(slot(b"bad")), keys=[wrapping.key()], sidecars=[sidecar(slot(b"bad"))] * 3)
    assert len(wrapping.asked) == 1


@pytest.mark.parametrize(
    "damaged", [b"", b"garbage", sidecar(slot(), file_id=bytes(16)), sidecar(slot())[:-1], bytes(70_000)]
)
def test_a_damaged_sidecar_is_passed_over(damaged: bytes) -> None:
    wrapping = Wrapping()
    assert open_recording(file_with(slot()), keys=[wrapping.key()], sidecars=[damaged])
    with pytest.raises(MissingSlotError, match="sidecar passed over"):
        open_recording(file_with(), keys=[wrapping.key()], sidecars=[damaged])


def test_a_damaged_slots_area_does_not_hide_a_good_sidecar() -> None:
    wrapping = Wrapping()
    data = bytearray(file_with(slot()).getvalue())
    data[136:138] = b"\xff\xff"  # the slot count
    assert open_recording(io.BytesIO(data), keys=[wrapping.key()], sidecars=[sidecar(slot())])
    with pytest.raises(MissingSlotError, match="slots area passed over"):
        open_recording(io.BytesIO(data), keys=[wrapping.key()])


def testsidecars_beside_a_path_are_found_highest_generation_first(tmp_path: Path) -> None:
    wrapping = Wrapping()
    path = tmp_path / "any-name.crec"
    path.write_bytes(file_with(slot(b"old")).getvalue())
    for generation, wrapped in ((2, b"two"), (10, b"ten"), (1, b"ok:" + DEK)):
        name = Sidecar(file_id=FILE_ID, generation=generation, slots=()).name
        (tmp_path / name).write_bytes(sidecar(slot(wrapped), generation=generation))
    (tmp_path / f"{bytes(16).hex()}.99.slots").write_bytes(sidecar(slot(b"foreign"), generation=99))
    with open_recording(path, keys=[wrapping.key()]):
        assert [asked.wrapped for asked, _ in wrapping.asked] == [b"ten", b"two", b"ok:" + DEK]


def test_a_directory_named_like_a_sidecar_does_not_stop_reading(tmp_path: Path) -> None:
    wrapping = Wrapping()
    path = tmp_path / "any-name.crec"
    path.write_bytes(file_with(slot()).getvalue())
    (tmp_path / Sidecar(file_id=FILE_ID, generation=99, slots=()).name).mkdir()
    with open_recording(path, keys=[wrapping.key()]) as opened:
        assert [len(record.payload) for record in opened.audio()] == [200]


def test_no_key_at_all_is_a_missing_slot() -> None:
    with pytest.raises(MissingSlotError):
        open_recording(file_with(slot()), keys=[])


def test_another_data_key_is_refused_before_anything_is_decrypted() -> None:
    with pytest.raises(WrongKeyError, match="does not match"):
        open_with_dek(file_with(), bytes(32))
    assert open_with_dek(file_with(), DEK)
