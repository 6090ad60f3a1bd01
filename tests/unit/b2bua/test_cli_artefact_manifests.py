"""Artefacts against whoever may write to the store and the index: cut, swapped, moved to another call, deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from b2bua.cli.main import main
from recording.artefact import CHUNK_SIZE
from recording.format.content import RecordingKind
from recording.format.manifest import MANIFEST_SUFFIX
from recording.index import IndexEntry, RecordingIndex
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import RecordedCall, record_call

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    made.replace("[keys.dev]", "fsync_interval_ms = 50\n[keys.dev]")
    return made


@pytest.fixture
def run(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, Any, str]:
        code = main(["recordings", words[0], "-c", str(file.path), *words[1:], "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document of a call, where it is stored, and its row in the index."""

    call: RecordedCall
    artefact: str
    path: Path
    entry: IndexEntry


class Place:
    """Calls with a document each."""

    def __init__(self, file: ConfigurationFile, run: Run, directory: Path) -> None:
        self._file = file
        self._run = run
        self._directory = directory

    @property
    def index(self) -> RecordingIndex:
        return RecordingIndex(self._file.load().recording.index_path)

    def attach(self, text: str, *, call: RecordedCall | None = None) -> Document:
        call = call or record_call(self._file.load())
        source = self._directory / f"{text}.txt"
        source.write_text(text * 1000)
        code, found, err = self._run("attach", call.call_uid, str(source), "--type", "text/plain")
        assert (code, err) == (0, "")
        (entry,) = self.index.find(recording=bytes.fromhex(found["artefact"]))
        assert entry.object_key is not None
        path = self._file.load().recording.directory / entry.object_key
        return Document(call=call, artefact=found["artefact"], path=path, entry=entry)

    def listed(self, document: Document, *words: str) -> tuple[int, str | None, str]:
        """Exit code of the list, what it says of the document's manifest, and what is wrong."""
        code, found, err = self._run("artefacts", document.call.call_uid, *words)
        rows = {each["artefact"]: each for each in found["artefacts"]} if found else {}
        return code, rows.get(document.artefact, {}).get("manifest"), err

    def verified(self, document: Document) -> tuple[int, Any]:
        code, found, _ = self._run("verify", document.artefact, "--reason", "test")
        return code, found

    def opened(self, document: Document) -> tuple[int, bool]:
        """Exit code, and whether a file was written."""
        out = self._directory / "out"
        out.unlink(missing_ok=True)
        words = ("--open", document.artefact, "-o", str(out), "--plaintext", "--reason", "test")
        return self._run("artefacts", document.call.call_uid, *words)[0], out.exists()


@pytest.fixture
def place(file: ConfigurationFile, run: Run, tmp_path: Path) -> Place:
    return Place(file, run, tmp_path)


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def lines_about(file: ConfigurationFile, document: Document) -> dict[str, dict[str, Any]]:
    return {
        line["event"]: line
        for line in sealed_lines(file.path)
        if line.get("file_id") == document.entry.file_id.hex()
    }


def test_an_artefact_is_signed_and_the_audit_log_has_its_hash(place: Place, file: ConfigurationFile) -> None:
    document = place.attach("one")
    assert document.path.with_suffix(MANIFEST_SUFFIX).exists()
    assert place.listed(document) == (0, "signed", "")
    code, found = place.verified(document)
    assert (code, found["recordings"][0]["manifest"]) == (0, "signed")
    assert place.opened(document) == (0, True)
    signed = lines_about(file, document)["recording_signed"]
    assert signed["fingerprint"] == hashlib.sha256(document.path.read_bytes()).hexdigest()
    assert (signed["call_uid"], signed["reason"]) == (document.call.call_uid, "complete")


def test_a_cut_artefact_is_told_from_a_crash(place: Place) -> None:
    document = place.attach("one")
    document.path.write_bytes(document.path.read_bytes()[: -CHUNK_SIZE - 16])
    code, manifest, err = place.listed(document)
    assert (code, manifest) == (26, "wrong")
    assert "cut in storage" in err
    code, found = place.verified(document)
    assert (code, found["recordings"][0]["manifest"]) == (26, "wrong")
    assert place.opened(document) == (27, False)


@pytest.mark.parametrize("with_manifests", [True, False])
@pytest.mark.parametrize("is_same_call", [True, False])
def test_artefacts_that_changed_places_in_the_store(
    place: Place, with_manifests: bool, is_same_call: bool
) -> None:
    one = place.attach("one")
    other = place.attach("other", call=one.call if is_same_call else None)
    swap(one.path, other.path)
    if with_manifests:
        swap(one.path.with_suffix(MANIFEST_SUFFIX), other.path.with_suffix(MANIFEST_SUFFIX))
    for document in (one, other):
        code, manifest, err = place.listed(document)
        assert (code, manifest) == (26, "wrong"), err
        assert place.verified(document)[0] == 109
        assert place.opened(document) == (109, False)


def test_an_artefact_that_the_index_gives_to_another_call(place: Place) -> None:
    """The index can be written by whoever has its file; whose document it is stands sealed in it."""
    one, other = place.attach("one"), place.attach("other")
    assert other.entry.parent is not None
    place.index.put([replace(one.entry, parent=other.entry.parent)])
    moved = replace(one, call=other.call)
    assert place.opened(moved) == (108, False)
    assert place.listed(moved, "--reason", "test")[0] == 108
    code, found = place.verified(moved)
    assert code == 108
    assert "another recording or call" in found["wholes"][0]["faults"][0]
    assert place.opened(other) == (0, True)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_deleted_artefact_is_missed(place: Place, file: ConfigurationFile, with_manifest: bool) -> None:
    document = place.attach("one")
    digest = hashlib.sha256(document.path.read_bytes()).hexdigest()
    document.path.unlink()
    if with_manifest:
        document.path.with_suffix(MANIFEST_SUFFIX).unlink()
    code, manifest, err = place.listed(document)
    assert (code, manifest) == (45, "missing")
    assert document.entry.file_id.hex() in err
    assert place.verified(document)[0] != 0
    assert place.opened(document)[1] is False
    lines = lines_about(file, document)
    assert lines["artefact_attached"]["call_uid"] == document.call.call_uid
    assert lines["recording_signed"]["fingerprint"] == digest, "what was there is known without the store"


def test_an_artefact_without_a_manifest_is_unsigned(place: Place) -> None:
    document = place.attach("one")
    document.path.with_suffix(MANIFEST_SUFFIX).unlink()
    assert place.listed(document) == (0, "unsigned", "")
    assert document.entry.kind is RecordingKind.ARTEFACT
