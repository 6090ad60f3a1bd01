"""Which module does each piece of cryptography, and whether a FIPS provider is really in force in it.

A flag proves nothing (a statically linked module may claim FIPS mode and then fail at everything), so the probe
encrypts: where a FIPS provider is in force ChaCha20-Poly1305 must fail and AES-256-GCM must work.

`main` runs in a process of its own, under the OpenSSL configuration that the service runs under.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import PostureSettings
from tls.openssl_conf import openssl_configuration

CHILD_S = 15.0
OPENSSL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFacts:
    """One module as it was found. `problem`: why nothing else is known."""

    use: str
    module: str = ""
    linkage: str = ""
    providers: tuple[str, ...] = ()
    are_providers_known: bool = False
    works_aes_gcm: bool = False
    works_chacha20: bool = False
    problem: str | None = None

    @property
    def is_fips_in_force(self) -> bool:
        """By what it did, not by what it says."""
        return self.works_aes_gcm and not self.works_chacha20


def ask_modules(posture: PostureSettings) -> Sequence[Row]:
    """Rows for every module of the serving process."""
    rows = []
    for key, facts in _run_child().items():
        rows += [judge_module(key, facts, posture), judge_fips(key, facts, posture)]
    return rows


def ask_system_openssl() -> Sequence[Row]:
    """The `openssl` program, which operators and recipients use; the service does not."""
    path = shutil.which("openssl")
    if path is None:
        finding, level = "there is none", Level.OK
    else:
        words = [_openssl(path, "version"), *_openssl(path, "list", "-providers").split()]
        finding, level = " ".join(words), Level.OK
    return [
        Row(
            key="module.openssl-program",
            safeguard=Safeguard.EVIDENCE,
            subject="the system's openssl program",
            finding=finding,
            evidence="openssl version; openssl list -providers",
            level=level,
        )
    ]


def _openssl(path: str, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - openssl, with the words above
        [path, *arguments],
        capture_output=True,
        text=True,
        timeout=OPENSSL_S,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()


def _run_child() -> Mapping[str, ModuleFacts]:
    """What `main` finds under the service's OpenSSL configuration.

    Raises:
        OSError, subprocess.SubprocessError, ValueError: it did not come to an end, or said something else.
    """
    descriptor = os.memfd_create("openssl.cnf", flags=0)
    try:
        os.write(descriptor, openssl_configuration().encode())
        done = subprocess.run(
            [sys.executable, "-P", "-m", "b2bua.posture.module_probe"],
            env={**os.environ, "OPENSSL_CONF": f"/proc/self/fd/{descriptor}"},
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHILD_S,
            check=False,
        )
    finally:
        os.close(descriptor)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ValueError(f"the module probe failed: {last[0]}")
    return read_facts(json.loads(done.stdout))


def read_facts(found: Mapping[str, Mapping[str, Any]]) -> Mapping[str, ModuleFacts]:
    """The child's answer as facts."""
    return {
        key: ModuleFacts(**{**facts, "providers": tuple(facts.get("providers", ()))})
        for key, facts in found.items()
    }


def judge_module(key: str, facts: ModuleFacts, posture: PostureSettings) -> Row:
    """Name, version, linkage, providers; the operator's claim about a certificate as that."""
    if facts.problem is not None:
        finding, level = f"not known: {facts.problem}", Level.UNKNOWN
    else:
        providers = ", ".join(facts.providers) or "none"
        listed = (
            f"providers loaded: {providers}" if facts.are_providers_known else "its providers can't be listed"
        )
        claimed = posture.claimed_certificates.get(key)
        parts = [f"{facts.module}, {facts.linkage}", listed]
        if claimed is not None:
            parts.append(f"CMVP certificate {claimed}, as claimed by operator")
        finding, level = "; ".join(parts), Level.OK
    return Row(
        key=f"module.{key}",
        safeguard=Safeguard.EVIDENCE,
        subject=f"module behind {facts.use}",
        finding=finding,
        evidence="asked of the loaded library in a process with the service's OpenSSL configuration",
        level=level,
    )


def judge_fips(key: str, facts: ModuleFacts, posture: PostureSettings) -> Row:
    """By the two encryptions, and by what the operator says is needed here."""
    return Row(
        key=f"fips.{key}",
        safeguard=Safeguard.KEYS_APART,
        subject=f"FIPS provider behind {facts.use}",
        finding=_fips_finding(facts, posture),
        evidence="ChaCha20-Poly1305 must fail and AES-256-GCM must work: "
        + (
            "not tried"
            if facts.problem is not None
            else f"{_worked(facts.works_chacha20)}, {_worked(facts.works_aes_gcm)}"
        ),
        level=_fips_level(facts, posture),
    )


def _fips_finding(facts: ModuleFacts, posture: PostureSettings) -> str:
    if facts.problem is not None:
        return f"not known: {facts.problem}"
    if not facts.works_aes_gcm:
        return "nothing works: a FIPS mode without a provider behind it"
    if facts.is_fips_in_force:
        return "in force; whether its version has a certificate is not known here"
    needed = {
        None: "posture.fips_required says neither that one is needed nor that none is",
        False: "posture.fips_required is false",
        True: "posture.fips_required is true",
    }[posture.fips_required]
    return f"none is in force; {needed}"


def _fips_level(facts: ModuleFacts, posture: PostureSettings) -> Level:
    if facts.problem is not None:
        return Level.UNKNOWN
    if not facts.works_aes_gcm:
        return Level.ALARM
    if facts.is_fips_in_force:
        return Level.OK
    return {None: Level.ATTENTION, False: Level.OK, True: Level.ALARM}[posture.fips_required]


def _worked(works: bool) -> str:
    return "it worked" if works else "it failed"
