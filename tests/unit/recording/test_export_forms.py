"""FLAC, Ogg Opus and MP3, sealed or not, to a path or a pipe: decodable, whole, in memory that does not grow."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from cryptography.hazmat.primitives.asymmetric import ec

from recording.cms import Recipient, parse_recipient
from recording.errors import ExportError, TruncatedRecordingError
from recording.export import ExportChannels, ExportForm, ExportPlan, export, form_of
from recording.format.content import ChannelLayout
from recording.scratch import BLOCK_BYTES, Scratch
from support.crec import META, interleave, openers, recording, segmented
from support.recipients import NOW, RecipientFiles, make_recipient

RATE = 8000
STEREO = replace(META, channels=2, layout=ChannelLayout.CALLER_CALLED)
LOSSY = {ExportForm.OPUS, ExportForm.MP3}


def tone(seconds: float, hz: float) -> npt.NDArray[np.int16]:
    times = np.arange(int(seconds * RATE)) / RATE
    return (9000 * np.sin(2 * np.pi * hz * times)).astype("<i2")


CALLER, CALLED = tone(40, 440), tone(40, 800)
SPLIT = segmented(interleave(CALLER.tobytes(), CALLED.tobytes()), [15 * RATE, 25 * RATE], meta=STEREO)


@pytest.fixture
def files(tmp_path: Path) -> RecipientFiles:
    return make_recipient(tmp_path, "reader", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def recipient(files: RecipientFiles) -> Recipient:
    return parse_recipient(files.certificate.read_bytes(), now=NOW)


def pitch(samples: npt.NDArray[np.int16]) -> float:
    spectrum = np.abs(np.fft.rfft(samples[: 4 * RATE].astype(float)))
    return float(np.argmax(spectrum)) / 4


@pytest.mark.parametrize("way", ["path", "stream", "sealed path", "sealed stream"])
@pytest.mark.parametrize("form", ExportForm)
def test_each_form_by_each_way(
    tmp_path: Path, files: RecipientFiles, recipient: Recipient, form: ExportForm, way: str
) -> None:
    plan = ExportPlan(form=form, recipients=(recipient,) if "sealed" in way else ())
    path, plain = tmp_path / "out", tmp_path / f"plain.{form.value}"
    if "path" in way:
        result = export(openers(SPLIT), path, plan)
        assert path.stat().st_mode & 0o777 == 0o600
    else:
        stream = io.BytesIO()
        result = export(openers(SPLIT), stream, plan)
        path.write_bytes(stream.getvalue())
    assert (result.frames, result.channels, result.is_complete) == (40 * RATE, 2, True)
    if plan.recipients:
        assert files.open(path, plain).returncode == 0
    else:
        path.rename(plain)
    with soundfile.SoundFile(plain) as file:
        assert file.channels == 2
        # Ogg Opus is decoded at 48 kHz whatever went in
        scale = file.samplerate // RATE
        found = file.read(dtype="int16")
    if form in LOSSY:
        assert abs(len(found) / scale - 40 * RATE) < 0.2 * RATE
        assert [pitch(found[::scale, side]) for side in (0, 1)] == pytest.approx([440, 800], abs=1)
    else:
        assert found.tobytes() == np.column_stack([CALLER, CALLED]).tobytes()


@pytest.mark.parametrize(
    ("channels", "expected"), [(ExportChannels.CALLER, CALLER), (ExportChannels.CALLED, CALLED)]
)
def test_one_party_as_flac(tmp_path: Path, channels: ExportChannels, expected: npt.NDArray[np.int16]) -> None:
    export(openers(SPLIT), tmp_path / "a.flac", ExportPlan(form=ExportForm.FLAC, channels=channels))
    found, rate = soundfile.read(tmp_path / "a.flac", dtype="int16")
    assert (rate, found.tobytes()) == (RATE, expected.tobytes())


def test_both_parties_of_a_mixed_recording_are_not_there() -> None:
    with pytest.raises(ExportError, match="not two channels"):
        export(openers([recording(bytes(9000))]), io.BytesIO(), ExportPlan(channels=ExportChannels.BOTH))


@pytest.mark.parametrize("form", [ExportForm.OPUS, ExportForm.MP3])
def test_a_rate_that_the_form_has_not(tmp_path: Path, form: ExportForm) -> None:
    data = recording(bytes(9000), meta=replace(META, rate_hz=7000))
    with pytest.raises(ExportError, match="7000 Hz"):
        export(openers([data]), tmp_path / "a", ExportPlan(form=form))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ExportForm)
def test_a_damaged_recording_leaves_nothing_in_any_form(
    tmp_path: Path, recipient: Recipient, form: ExportForm
) -> None:
    for recipients in ((), (recipient,)):
        stream, plan = io.BytesIO(), ExportPlan(form=form, recipients=recipients)
        for target in (stream, tmp_path / "a"):
            with pytest.raises(TruncatedRecordingError):
                export(openers([SPLIT[0], SPLIT[1][:-100]]), target, plan)
        assert stream.getvalue() == b""
        assert not (tmp_path / "a").exists()


def test_a_full_disk_under_an_encoder_is_an_error_of_the_system(tmp_path: Path) -> None:
    limit = (64 * 1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    try:
        with pytest.raises(OSError, match="too large"):
            export(openers(SPLIT), tmp_path / "a.flac", ExportPlan(form=ExportForm.FLAC))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert list(tmp_path.iterdir()) == []


def test_without_libsndfile_wav_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ExportError, match="install soundfile"):
        export(openers(SPLIT), tmp_path / "a.mp3", ExportPlan(form=ExportForm.MP3))
    assert export(openers(SPLIT), tmp_path / "a.wav", ExportPlan()).is_complete


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.wav", "wav"), ("a.FLAC", "flac"), ("a.opus.p7m", "opus"), ("a.ogg", "opus"), ("a.mp3.cms", "mp3"),
     ("a", "wav")],
)  # fmt: skip
def test_the_name_says_the_form(name: str, form: str) -> None:
    assert form_of(Path(name)) is ExportForm(form)


# --- bounded memory


GROWTH = """
import sys
from pathlib import Path
from recording.cms import parse_recipient
from recording.export import ExportForm, ExportPlan, export
from recording.reader import open_with_dek
from support.crec import DEK
from support.recipients import NOW
path, form, certificate, out = sys.argv[1:]
recipients = (parse_recipient(Path(certificate).read_bytes(), now=NOW),) if certificate else ()
plan = ExportPlan(form=ExportForm(form), recipients=recipients)
export([lambda: open_with_dek(Path(path), DEK)], Path(out), plan)
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.parametrize("is_sealed", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize(
    ("form", "more"), [(ExportForm.WAV, 32), (ExportForm.FLAC, 24), (ExportForm.OPUS, 3)]
)
def test_memory_does_not_grow_with_the_recording(
    tmp_path: Path, files: RecipientFiles, form: ExportForm, more: int, is_sealed: bool
) -> None:
    noise = os.urandom(1 << 20)  # 65 s of mono, which no codec makes small
    peaks = []
    for megabytes in (1, more):
        source = tmp_path / f"{megabytes}.crec"
        source.write_bytes(recording(noise * megabytes, chunk_size=8192))
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, str(source), form.value, str(files.certificate) if is_sealed else "",
             str(tmp_path / f"{megabytes}.out")],
            capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=120,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 3 * 1024, f"KiB: {peaks}"


def test_scratch_gives_back_what_was_written_and_shows_none_of_it(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    content = bytearray(os.urandom(3 * BLOCK_BYTES + 99))
    for at in range(0, len(content), 10_001):
        scratch.write(content[at : at + 10_001])
    scratch.seek(10)
    scratch.write(b"length")
    content[10:16] = b"length"
    scratch.seek(0, os.SEEK_END)
    assert scratch.tell() == len(content) == scratch.size
    scratch.write(b"end")
    on_disk = os.pread(scratch._file.fileno(), 10 * BLOCK_BYTES, 0)
    assert len(on_disk) == 2 * (BLOCK_BYTES + 16)
    assert bytes(content[BLOCK_BYTES : BLOCK_BYTES + 32]) not in on_disk
    assert b"".join(scratch.blocks()) == bytes(content) + b"end"
    assert list(tmp_path.iterdir()) == []
    scratch.close()


@pytest.mark.parametrize("at", [BLOCK_BYTES, 2 * BLOCK_BYTES + 5, 3 * BLOCK_BYTES + 1])
def test_scratch_seals_no_block_twice(tmp_path: Path, at: int) -> None:
    scratch = Scratch(tmp_path)
    scratch.write(bytes(3 * BLOCK_BYTES))
    scratch.seek(at)
    with pytest.raises(ExportError, match="sealed already"):
        scratch.write(b"x")
    scratch.close()
