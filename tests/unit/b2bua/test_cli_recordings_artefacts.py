"""`recordings attach` and `artefacts`: any size, sealed like a recording, opened whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from b2bua.cli.main import main
from b2bua.settings import Settings
from recording import artefact
from recording.artefact import ArtefactWriter, Belonging, open_artefact
from recording.errors import ExportError, RecordingError
from recording.format.content import RecordingKind
from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.keys.build import build_provider
from recording.spool_state import SpoolError
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.recipients import make_recipient
from support.recorded import RecordedCall, record_call

Run = Callable[..., tuple[int, str, str]]
RECORD_BYTES = artefact.CHUNK_SIZE - 16


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    made.replace("[keys.dev]", "fsync_interval_ms = 50\n[keys.dev]")
    return made


@pytest.fixture
def call(file: ConfigurationFile) -> RecordedCall:
    return record_call(file.load())


@pytest.fixture
def run(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, str, str]:
        code = main(["recordings", words[0], "-c", str(file.path), *words[1:]])
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def index(file: ConfigurationFile, call: RecordedCall) -> RecordingIndex:
    return RecordingIndex(file.load().recording.index_path)


def entry_of(index: RecordingIndex, call: RecordedCall) -> IndexEntry:
    entry = index.get(call.file_ids[0])
    assert entry is not None
    return entry


def writer_of(settings: Settings, index: RecordingIndex, **changes: object) -> ArtefactWriter:
    recording = settings.recording
    (tenant,) = settings.tenants.values()
    arguments: dict[str, object] = {
        "spool_directory": recording.spool_directory,
        "min_free_bytes": 0,
        "index": index,
        "provider": build_provider(tenant.key, recording.keys[tenant.key]),
    }
    return ArtefactWriter(**(arguments | changes))  # type: ignore[arg-type]


def document(path: Path, size: int) -> bytes:
    content = os.urandom(size)
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("size", [0, 1, RECORD_BYTES, RECORD_BYTES + 1, 1_000_000])
def test_a_document_comes_back(
    run: Run, call: RecordedCall, index: RecordingIndex, file: ConfigurationFile, tmp_path: Path, size: int
) -> None:
    content = document(tmp_path / "t.txt", size)
    code, printed, err = run(
        "attach", call.call_uid, str(tmp_path / "t.txt"), "--type", "Text/Plain", "--json"
    )
    assert (code, err) == (0, "")
    found = json.loads(printed)
    assert (found["size_bytes"], found["stored"]) == (size, True)
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    (row,) = index.find(parent=entry_of(index, call).recording)
    assert (row.kind, row.state, row.call_uid) == (RecordingKind.ARTEFACT, IndexState.COMPLETE, call.call_uid)
    assert row.object_key is not None
    assert list(file.load().recording.spool_directory.iterdir()) == []
    stored = (file.load().recording.directory / row.object_key).read_bytes()
    assert b"text/plain" not in stored
    assert size < 16 or content[:16] not in stored

    out = tmp_path / "out"
    words = ["--open", found["artefact"], "-o", str(out), "--plaintext", "--reason", "transcription"]
    assert run("artefacts", call.call_uid, *words)[0] == 0
    assert out.read_bytes() == content
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    code, _, err = run("verify", found["artefact"], "--reason", "test")
    assert (code, err) == (0, "")


def test_documents_are_listed_without_a_key_and_told_with_a_reason(
    run: Run, call: RecordedCall, file: ConfigurationFile, tmp_path: Path
) -> None:
    for name, kind in (("a", "text/plain"), ("b", "application/x-npy")):
        document(tmp_path / name, 2000)
        run("attach", call.call_uid, str(tmp_path / name), "--type", kind)
    before = len(sealed_lines(file.path))
    rows = json.loads(run("artefacts", call.call_uid, "--json")[1])["artefacts"]
    assert [row["state"] for row in rows] == ["complete"] * 2
    assert len(sealed_lines(file.path)) == before, "nothing was decrypted"
    rows = json.loads(run("artefacts", call.call_uid, "--json", "--reason", "operations")[1])["artefacts"]
    assert sorted(row["type"] for row in rows) == ["application/x-npy", "text/plain"]
    assert [line["action"] for line in sealed_lines(file.path)[before:]] == ["list", "list"]
    # The call itself is its audio alone.
    assert (
        run("export", call.call_uid, "-o", str(tmp_path / "a.wav"), "--plaintext", "--reason", "test")[0] == 0
    )


def test_a_document_is_opened_for_a_recipient(
    run: Run, call: RecordedCall, file: ConfigurationFile, tmp_path: Path
) -> None:
    content = document(tmp_path / "t", 300_000)
    found = json.loads(run("attach", call.call_uid, str(tmp_path / "t"), "--type", "a/b", "--json")[1])
    recipient = make_recipient(tmp_path, "doctor", ec.generate_private_key(ec.SECP256R1()))
    sealed, plain = tmp_path / "t.p7m", tmp_path / "plain"
    words = ["--open", found["artefact"], "-o", str(sealed)]
    assert run("artefacts", call.call_uid, *words, "--reason", "treatment")[0] == 77, "for whom?"
    assert run("artefacts", call.call_uid, *words, "--plaintext")[0] == 77, "for what reason?"
    assert not sealed.exists()
    seal = ["--recipient", str(recipient.certificate), "--reason", "treatment"]
    assert run("artefacts", call.call_uid, *words, *seal)[0] == 0
    assert recipient.open(sealed, plain).returncode == 0
    assert plain.read_bytes() == content
    events = [line["event"] for line in sealed_lines(file.path)]
    assert events == ["artefact_attached", "recording_signed", "export_sealed", "recording_read"]


def test_a_document_of_several_segments_has_a_key_for_each(
    call: RecordedCall, index: RecordingIndex, file: ConfigurationFile, run: Run, tmp_path: Path
) -> None:
    content = document(tmp_path / "big", 7 * RECORD_BYTES + 5)
    writer = writer_of(file.load(), index, segment_records=3)
    attached = writer.attach(entry_of(index, call), tmp_path / "big", media_type="a/b")
    assert len(attached.file_ids) == 3
    assert run("recover")[0] == 0
    out = ["--plaintext", "--reason", "test", "-o"]
    words = ["artefacts", call.call_uid, "--open", attached.artefact.hex(), *out]
    assert run(*words, str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out").read_bytes() == content
    assert run("verify", attached.artefact.hex(), "--reason", "test")[0] == 0

    entry = index.get(attached.file_ids[1])
    assert entry is not None
    assert entry.object_key is not None
    stored = file.load().recording.directory / entry.object_key
    kept = stored.read_bytes()
    stored.chmod(0o600)
    stored.write_bytes(kept[:-100])
    assert run(*words, str(tmp_path / "cut"))[0] == 27
    index.put([replace(entry, state=IndexState.FAILED)])
    assert run(*words, str(tmp_path / "lost"))[0] == 108
    assert run("verify", attached.artefact.hex(), "--reason", "test")[0] == 108
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["big", "out"]


def test_a_document_that_is_not_the_one_that_was_named(
    call: RecordedCall, index: RecordingIndex, file: ConfigurationFile, run: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every record authentic, but META's SHA-256 is another's: the writer was at fault, or somebody with its keys."""
    document(tmp_path / "t", 1000)
    digest = hashlib.sha256(b"another").digest()
    monkeypatch.setattr(artefact, "_measure", lambda file, progress: (1000, digest))
    fake = SimpleNamespace(update=lambda _: None, digest=lambda: digest)
    with monkeypatch.context() as patch:
        patch.setattr(artefact, "hashlib", SimpleNamespace(sha256=lambda: fake))
        attached = writer_of(file.load(), index).attach(
            entry_of(index, call), tmp_path / "t", media_type="a/b"
        )
    run("recover")
    words = ["--open", attached.artefact.hex(), "-o", str(tmp_path / "o"), "--plaintext", "--reason", "test"]
    assert run("artefacts", call.call_uid, *words)[0] == 28
    assert not (tmp_path / "o").exists()
    code, _, err = run("verify", attached.artefact.hex(), "--reason", "test")
    assert (code, "SHA-256" in err) == (108, True)


def test_a_document_that_changes_meanwhile_leaves_nothing(
    call: RecordedCall, index: RecordingIndex, file: ConfigurationFile, tmp_path: Path
) -> None:
    path = tmp_path / "t"
    document(path, 500_000)

    def change(done: int, total: int) -> None:
        if done == total // 2:
            with path.open("r+b") as changed:
                changed.write(b"other")

    with pytest.raises(ExportError, match="changed"):
        writer_of(file.load(), index).attach(entry_of(index, call), path, media_type="a/b", progress=change)
    assert list(file.load().recording.spool_directory.iterdir()) == []
    assert [entry.state for entry in index.find(kind=RecordingKind.ARTEFACT)] == [IndexState.FAILED]


def test_no_room_is_said_before_anything_is_written(
    call: RecordedCall, index: RecordingIndex, file: ConfigurationFile, tmp_path: Path
) -> None:
    document(tmp_path / "t", 1000)
    with pytest.raises(SpoolError, match="min_free_bytes"):
        writer_of(file.load(), index, min_free_bytes=1 << 60).attach(
            entry_of(index, call), tmp_path / "t", media_type="a/b"
        )
    assert index.find(kind=RecordingKind.ARTEFACT) == []


def test_nothing_is_attached_to_what_is_being_deleted_and_a_hold_is_taken_over(
    call: RecordedCall, index: RecordingIndex, file: ConfigurationFile, tmp_path: Path
) -> None:
    document(tmp_path / "t", 1000)
    entry = entry_of(index, call)
    attached = writer_of(file.load(), index).attach(
        replace(entry, hold="lawsuit"), tmp_path / "t", media_type="a/b"
    )
    row = index.get(attached.file_ids[0])
    assert row is not None
    assert row.hold == "lawsuit"
    index.put([replace(entry, state=IndexState.DELETING)])
    with pytest.raises(ExportError, match="deleted"):
        writer_of(file.load(), index).attach(entry, tmp_path / "t", media_type="a/b")


@pytest.mark.parametrize(
    "kind", ["text", "text/", "/plain", "text/plain; charset=utf-8", "a b/c", "x/" + "y" * 300]
)
def test_what_is_no_media_type(run: Run, call: RecordedCall, tmp_path: Path, kind: str) -> None:
    document(tmp_path / "t", 10)
    with pytest.raises(SystemExit) as ended:
        run("attach", call.call_uid, str(tmp_path / "t"), "--type", kind)
    assert ended.value.code == 2


def test_a_store_that_fails_leaves_the_document_in_the_spool(
    run: Run, call: RecordedCall, file: ConfigurationFile, index: RecordingIndex, tmp_path: Path
) -> None:
    content = document(tmp_path / "t", 1000)
    (of_tenant,) = file.load().recording.directory.iterdir()
    hidden = of_tenant.rename(tmp_path / "hidden")
    of_tenant.write_text("no directory")
    code, printed, err = run("attach", call.call_uid, str(tmp_path / "t"), "--type", "a/b", "--json")
    assert (code, json.loads(printed)["stored"]) == (87, False)
    assert "recordings recover" in err
    of_tenant.unlink()
    hidden.rename(of_tenant)
    assert run("recover")[0] == 0
    (row,) = index.find(kind=RecordingKind.ARTEFACT)
    assert (row.state, row.parent) == (IndexState.COMPLETE, entry_of(index, call).recording)
    words = ["--open", row.recording.hex(), "-o", str(tmp_path / "o"), "--plaintext", "--reason", "test"]
    assert run("artefacts", call.call_uid, *words)[0] == 0
    assert (tmp_path / "o").read_bytes() == content


def test_a_call_s_audio_is_no_document(
    run: Run, call: RecordedCall, index: RecordingIndex, tmp_path: Path
) -> None:
    recording = entry_of(index, call).recording.hex()
    words = ["--open", recording, "-o", str(tmp_path / "o"), "--plaintext", "--reason", "test"]
    assert run("artefacts", call.call_uid, *words)[0] == 77
    assert run("artefacts", call.call_uid, "--open", recording)[0] == 77
    with pytest.raises(ExportError):
        open_artefact([], tmp_path / "o", Belonging(artefact=b"A" * 16, parent=None))


MEMORY = """
import sys
from pathlib import Path
from b2bua.cli.main import main
code = main(sys.argv[1:])
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
sys.exit(code)
"""


def test_memory_does_not_grow_with_the_document(
    file: ConfigurationFile, call: RecordedCall, index: RecordingIndex, tmp_path: Path
) -> None:
    def peak(*words: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, "recordings", words[0], "-c", str(file.path), *words[1:]],
            capture_output=True, text=True, timeout=120, check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        return int(done.stdout.split()[-1])

    sealing, opening = [], []
    for size in (100_000, 60_000_000):
        path = tmp_path / str(size)
        with path.open("wb") as made:
            made.truncate(size)
        sealing.append(peak("attach", call.call_uid, str(path), "--type", "a/b"))
        (newest,) = [
            entry.recording.hex() for entry in index.find(kind=RecordingKind.ARTEFACT)
            if size <= entry.size_bytes <= size + 1_000_000
        ]  # fmt: skip
        words = ["--open", newest, "-o", f"{path}.out", "--plaintext", "--reason", "test"]
        opening.append(peak("artefacts", call.call_uid, *words))
        assert Path(f"{path}.out").stat().st_size == size
    assert sealing[1] - sealing[0] < 4096, f"KiB: {sealing}"
    assert opening[1] - opening[0] < 4096, f"KiB: {opening}"


def test_the_key_s_refusal_leaves_nothing(
    call: RecordedCall, index: RecordingIndex, file: ConfigurationFile, tmp_path: Path
) -> None:
    document(tmp_path / "t", 1000)

    class Refusing:
        def new_key(self, context: object) -> object:
            raise RecordingError("the key service says no")

    with pytest.raises(RecordingError, match="says no"):
        writer_of(file.load(), index, provider=Refusing()).attach(
            entry_of(index, call), tmp_path / "t", media_type="a/b"
        )
    assert list(file.load().recording.spool_directory.iterdir()) == []
