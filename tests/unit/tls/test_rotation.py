"""Rotation: a good new set is offered once, a bad one is reported once, a half-written one is waited for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.certificates import DAY, Flaw, Issuer, write_private
from tls.errors import ProblemCode
from tls.material import MaterialFiles, TLSMaterial, load_material, read_material
from tls.rotation import GRACE_S, MaterialWatcher, Rotation, RotationOffered, RotationRefused
from tls.settings import TLSMaterialSettings

HOST = "edge.example"


@dataclass
class Bench:
    """A watcher on files that the test replaces, with clocks that move when told."""

    issuer: Issuer
    settings: TLSMaterialSettings
    seconds: float = 100.0
    watcher: MaterialWatcher = field(init=False)

    def __post_init__(self) -> None:
        self.watcher = MaterialWatcher(
            load_material(self.settings, now=self.issuer.now),
            clock=lambda: self.issuer.now,
            monotonic_s=lambda: self.seconds,
        )

    def renew(self) -> None:
        self.issuer.material("edge", HOST)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    issuer = Issuer(tmp_path)
    return Bench(issuer=issuer, settings=issuer.material("edge", HOST, crl_path=issuer.write_crl()))


def offered(rotation: Rotation | None) -> RotationOffered:
    assert isinstance(rotation, RotationOffered)
    return rotation


def refused(rotation: Rotation | None) -> RotationRefused:
    assert isinstance(rotation, RotationRefused)
    return rotation


def test_nothing_changed(bench: Bench) -> None:
    assert bench.watcher.check() is None
    assert bench.watcher.check() is None


def test_a_new_pair_is_offered_once(bench: Bench) -> None:
    before = bench.watcher.material
    bench.renew()
    rotation = offered(bench.watcher.check())
    assert rotation.changed
    assert rotation.previous is before
    assert rotation.material.fingerprint != before.fingerprint
    assert bench.watcher.material is rotation.material
    assert bench.watcher.check() is None


def replace_by_rename(bench: Bench) -> None:
    fresh = Issuer(bench.issuer.directory / "fresh", now=bench.issuer.now)
    files = fresh.material("edge", HOST)
    files.certificate_path.replace(bench.settings.certificate_path)
    files.private_key_path.replace(bench.settings.private_key_path)


def new_trust(bench: Bench) -> None:
    other = Issuer(bench.issuer.directory / "other", name="Other")
    bench.settings.trust_path.write_bytes(bench.issuer.root.pem + other.root.pem)


def new_crl(bench: Bench) -> None:
    bench.issuer.revoke("edge")
    bench.issuer.write_crl()


@pytest.mark.parametrize("change", [replace_by_rename, new_trust, new_crl])
def test_each_way_and_each_file_is_noticed(bench: Bench, change: Callable[[Bench], None]) -> None:
    assert bench.watcher.check() is None
    change(bench)
    assert offered(bench.watcher.check()).changed


def test_same_size_and_time_but_other_content_is_noticed(bench: Bench) -> None:
    path = bench.settings.certificate_path
    assert bench.watcher.check() is None
    status, old = path.stat(), path.read_bytes()
    for _ in range(200):
        bench.renew()
        if path.stat().st_size == len(old):
            break
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert offered(bench.watcher.check()).changed


def test_a_touched_file_is_no_change(bench: Bench) -> None:
    assert bench.watcher.check() is None
    os.utime(bench.settings.certificate_path, (0, 0))
    assert bench.watcher.check() is None
    copy = bench.issuer.directory / "copy.pem"
    shutil.copy(bench.settings.certificate_path, copy)
    copy.replace(bench.settings.certificate_path)
    assert bench.watcher.check() is None


def test_a_change_before_the_first_check_is_not_missed(bench: Bench) -> None:
    bench.renew()
    assert offered(bench.watcher.check()).changed


def test_a_half_written_set_is_waited_for(bench: Bench) -> None:
    old_key = bench.settings.private_key_path.read_bytes()
    bench.renew()
    new_key = bench.settings.private_key_path.read_bytes()
    write_private(bench.settings.private_key_path, old_key)
    assert bench.watcher.check() is None
    bench.seconds += GRACE_S / 2
    assert bench.watcher.check() is None
    write_private(bench.settings.private_key_path, new_key)
    assert offered(bench.watcher.check()).changed


def test_a_set_that_stays_half_written_is_reported_once_and_the_old_kept(bench: Bench) -> None:
    before = bench.watcher.material
    old_key = bench.settings.private_key_path.read_bytes()
    bench.renew()
    write_private(bench.settings.private_key_path, old_key)
    assert bench.watcher.check() is None
    bench.seconds += GRACE_S
    rotation = refused(bench.watcher.check())
    assert rotation.error.codes == {ProblemCode.KEY_MISMATCH}
    assert rotation.kept is before
    assert bench.watcher.material is before
    bench.seconds += GRACE_S
    assert bench.watcher.check() is None
    bench.renew()
    assert offered(bench.watcher.check()).previous is before


def test_another_bad_set_is_reported_again(bench: Bench) -> None:
    bench.settings.certificate_path.write_text("bad")
    assert bench.watcher.check() is None
    bench.seconds += GRACE_S
    assert refused(bench.watcher.check()).error.codes == {ProblemCode.NOT_PEM}
    bench.issuer.material("edge", HOST, flaw=Flaw.EXPIRED)
    assert refused(bench.watcher.check()).error.codes == {ProblemCode.EXPIRED}


def test_after_a_recovery_everything_starts_anew(bench: Bench) -> None:
    bench.settings.certificate_path.write_text("bad")
    assert bench.watcher.check() is None
    bench.seconds += GRACE_S
    refused(bench.watcher.check())
    bench.renew()
    offered(bench.watcher.check())
    bench.seconds += GRACE_S
    good = bench.settings.certificate_path.read_bytes()
    bench.settings.certificate_path.write_text("bad")
    assert bench.watcher.check() is None, "a new fault has a grace of its own"
    bench.seconds += GRACE_S
    refused(bench.watcher.check())
    bench.settings.certificate_path.write_bytes(good)
    assert bench.watcher.check() is None


def test_unchanged_files_are_not_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[TLSMaterialSettings] = []

    def counted(settings: TLSMaterialSettings) -> MaterialFiles:
        reads.append(settings)
        return read_material(settings)

    monkeypatch.setattr("tls.rotation.read_material", counted)
    for _ in range(3):
        assert bench.watcher.check() is None
    assert len(reads) == 1
    bench.renew()
    offered(bench.watcher.check())
    assert bench.watcher.check() is None
    assert len(reads) == 2
    offered(bench.watcher.check(force=True))
    assert len(reads) == 3


def test_going_back_to_what_is_in_use_ends_the_matter(bench: Bench) -> None:
    good = bench.settings.certificate_path.read_bytes()
    bench.settings.certificate_path.write_text("bad")
    assert bench.watcher.check() is None
    bench.settings.certificate_path.write_bytes(good)
    assert bench.watcher.check() is None
    bench.seconds += GRACE_S
    assert bench.watcher.check() is None
    bench.settings.certificate_path.write_text("bad again")
    assert bench.watcher.check() is None, "a new fault has a grace of its own"


def test_a_mended_mode_is_noticed(bench: Bench) -> None:
    bench.settings.private_key_path.chmod(0o644)
    assert bench.watcher.check() is None
    bench.seconds += GRACE_S
    assert refused(bench.watcher.check()).error.codes == {ProblemCode.KEY_EXPOSED}
    bench.settings.private_key_path.chmod(0o600)
    assert bench.watcher.check() is None


def test_a_missing_file_is_reported_and_its_return_accepted(bench: Bench) -> None:
    aside = bench.issuer.directory / "aside"
    bench.settings.trust_path.rename(aside)
    assert bench.watcher.check() is None
    bench.seconds += GRACE_S
    assert refused(bench.watcher.check()).error.codes == {ProblemCode.MISSING}
    aside.rename(bench.settings.trust_path)
    assert bench.watcher.check() is None


def test_force_reports_at_once(bench: Bench) -> None:
    bench.settings.certificate_path.write_text("bad")
    assert refused(bench.watcher.check(force=True)).error.codes == {ProblemCode.NOT_PEM}
    assert refused(bench.watcher.check(force=True)).error.codes == {ProblemCode.NOT_PEM}
    assert bench.watcher.check() is None, "already reported"


def test_force_offers_even_what_is_in_use(bench: Bench) -> None:
    before: TLSMaterial = bench.watcher.material
    rotation = offered(bench.watcher.check(force=True))
    assert not rotation.changed
    assert rotation.material.fingerprint == before.fingerprint


def test_force_judges_by_todays_date(bench: Bench) -> None:
    bench.issuer.now += 31 * DAY
    assert refused(bench.watcher.check(force=True)).error.codes == {
        ProblemCode.EXPIRED,
        ProblemCode.CRL_UNUSABLE,
    }
