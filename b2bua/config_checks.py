"""What no table can know by itself: references between tables, names that must be unique, ports that clash."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection
from pathlib import Path

from b2bua.config_document import Document, Report, Section, dotted
from b2bua.config_index import check_index
from b2bua.config_keys import AWSKey, LocalKey, RSAKey
from b2bua.config_lines import KeyPath
from b2bua.config_shape_calls import TenantTable, TrunkTable
from b2bua.config_shape_process import AuditTable, LogTable
from b2bua.config_sink import check_sink
from b2bua.config_values import KMS_KEY, HostPort, PortRange
from b2bua.settings import Environment

MOST_TRUNKS = 60
"""Of 128 accounts (packaging/pjsip/config_site.h), two a trunk, with a margin."""
MOST_SOCKET_NAME_BYTES = 80
"""`sun_path` has 108 with its terminating zero (unix(7)); the way to the directory takes up to 25 of them."""
PORTS_PER_CALL = 4
"""Two legs, an RTP and an RTCP port each."""


def check_references(document: Document, report: Report) -> None:
    """Every name points at a table that exists and can do what is asked of it."""
    for tenant in document.tenants.values():
        if tenant.good("key"):
            _check_name(report, tenant.key("key"), "keys", tenant.value.key, document.keys)
        if tenant.good("fallback_key") and tenant.value.fallback_key is not None:
            _check_fallback(document, report, tenant, tenant.value.fallback_key)
    for trunk in document.trunks.values():
        if trunk.good("tenant"):
            _check_name(report, trunk.key("tenant"), "tenants", trunk.value.tenant, document.tenants)
    for route in document.routes:
        for name in ("source", "destination"):
            if route.good(name):
                _check_name(report, route.key(name), "trunks", getattr(route.value, name), document.trunks)
        if route.good("destination"):
            _check_destination(document, report, route.value.destination, route.key("destination"))


def _check_name(report: Report, key: KeyPath, kind: str, name: str, declared: Collection[str]) -> None:
    if name not in declared:
        known = ", ".join(sorted(declared)) or "none"
        report.add(key, f"there is no [{kind}.{name}]", f"add that table or use one that exists: {known}")


def _check_fallback(document: Document, report: Report, tenant: Section[TenantTable], name: str) -> None:
    """It must work while every key service is away."""
    key = tenant.key("fallback_key")
    _check_name(report, key, "keys", name, document.keys)
    section = document.keys.get(name)
    if section is not None and not isinstance(section.value, RSAKey):
        cure = 'name a [keys.NAME] with provider = "rsa-oaep-sha256", which needs no service to wrap'
        report.add(key, f"{name} depends on a service that may be away too", cure)
    elif tenant.good("key") and tenant.value.key == name:
        report.add(key, "it is the tenant's key itself", "remove it, or name another public key")


def _check_destination(document: Document, report: Report, name: str, key: KeyPath) -> None:
    trunk = document.trunks.get(name)
    if trunk is not None and trunk.good("target") and trunk.value.target is None:
        report.add(
            key, f"trunk {name} has no target, so no call can go out on it", f"add target to [trunks.{name}]"
        )


def check_uniqueness(document: Document, report: Report) -> None:
    """The certificate decides the trunk and the handle the tenant: what two of them share decides nothing."""
    _check_identities(document.trunks, report)
    handles: dict[bytes, KeyPath] = {}
    for tenant in document.tenants.values():
        if tenant.good("handle"):
            first = handles.setdefault(tenant.value.handle, tenant.path)
            if first is not tenant.path:
                report.add(
                    tenant.key("handle"),
                    f"{dotted(first)} has the same handle",
                    "draw another 16 random bytes",
                )
    routes: dict[tuple[str, str], KeyPath] = {}
    for route in document.routes:
        if route.good("source", "prefix"):
            first = routes.setdefault((route.value.source, route.value.prefix), route.path)
            if first is not route.path:
                what = f"{dotted(first)} has the same from and prefix"
                report.add(route.key("source"), what, "give one of them a longer prefix or remove it")


def _check_identities(trunks: dict[str, Section[TrunkTable]], report: Report) -> None:
    owners: dict[str, str] = {}
    for name, trunk in trunks.items():
        if not trunk.good("identities"):
            continue
        for index, identity in enumerate(trunk.value.identities):
            owner = owners.setdefault(identity, name)
            if owner != name:
                what = f"trunk {owner} has the identity {identity} too, so it would not decide the trunk"
                report.add((*trunk.key("identities"), index), what, "give each trunk names of its own")


def check_ports(document: Document, report: Report) -> None:
    """No port is asked for twice, and there are enough of them for the calls admitted."""
    listens: list[tuple[KeyPath, HostPort]] = []
    for section in (document.sip, document.metrics):
        if section is None or not section.good("listen"):
            continue
        key, listen = section.key("listen"), section.value.listen
        for other_key, other in listens:
            if listen.port == other.port and _share_address(listen.host, other.host):
                report.add(
                    key, f"{dotted(other_key)} takes port {listen.port} already", "choose another port"
                )
        listens.append((key, listen))
    media = document.media
    if media is None or not media.good("rtp_ports"):
        return
    ports = media.value.rtp_ports
    for key, listen in listens:
        if listen.port is not None and listen.port in ports:
            cure = f"move {dotted(key)} or {dotted(media.key('rtp_ports'))}"
            report.add(media.key("rtp_ports"), f"the range holds port {listen.port} of {dotted(key)}", cure)
    _check_port_count(document, report, ports, media.key("rtp_ports"))


def _share_address(one: str, other: str) -> bool:
    addresses = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return one == other or any(address.is_unspecified for address in addresses)


def _is_wildcard(listen: HostPort) -> bool:
    return ipaddress.ip_address(listen.host).is_unspecified


def _check_port_count(document: Document, report: Report, ports: PortRange, key: KeyPath) -> None:
    limits = document.limits
    if limits is None or not limits.good("max_calls"):
        return
    needed = limits.value.max_calls * PORTS_PER_CALL
    if ports.size < needed:
        calls = ports.size // PORTS_PER_CALL
        what = f"{ports.size} ports serve {calls} calls, limits.max_calls is {limits.value.max_calls}"
        report.add(key, what, f"widen the range to {needed} ports or lower limits.max_calls")


def check_addresses(document: Document, report: Report) -> None:
    """What peers are told must be something they can reach."""
    sip, media = document.sip, document.media
    if (
        sip is not None
        and sip.good("listen", "public")
        and sip.value.public is None
        and _is_wildcard(sip.value.listen)
    ):
        cure = 'add public = "HOST:PORT" to [sip]'
        report.add(sip.key("listen"), "listening on every address leaves open what peers are told", cure)
    for trunk in document.trunks.values():
        if (
            trunk.is_set("addresses")
            and trunk.value.addresses
            and trunk.good("target")
            and trunk.value.target is None
        ):
            report.add(
                trunk.key("addresses"), "there are addresses but no target", "add target, or remove addresses"
            )
    if sip is None or media is None or not (sip.good("public") and media.good("address", "public_address")):
        return
    address, public = media.value.address, media.value.public_address
    if public is not None and (":" in address) != (":" in public):
        what = f"{public} is not of the address family of media.address {address}"
        report.add(media.key("public_address"), what, "use two IPv4 or two IPv6 addresses")


def check_environment(document: Document, report: Report) -> None:
    """Production refuses keys that lie beside the data they protect."""
    if (
        not document.general.good("environment")
        or document.general.value.environment is not Environment.PRODUCTION
    ):
        return
    for section in document.keys.values():
        if section is not None and isinstance(section.value, LocalKey):
            cure = (
                'use provider = "aws-kms", "vault-transit" or "pkcs11-aes-kw", or environment = "development"'
            )
            report.add(section.key("provider"), "a local key is for development, production refuses it", cure)


def check_signing(document: Document, report: Report) -> None:
    """Production signs what it records: without, a recording cut in storage looks like one that a crash cut."""
    section, general = document.recording, document.general
    if section is None or not section.good("signing_key", "verification_keys"):
        return
    if section.value.signing_key is not None or section.value.verification_keys:
        return
    if general.good("environment") and general.value.environment is Environment.PRODUCTION:
        cure = 'make a key (openssl ecparam -genkey -noout -name prime256v1) and add signing_key = "FILE"'
        report.add(section.key("signing_key"), "production signs its recordings, and no key is named", cure)


def check_audit(document: Document, report: Report) -> None:
    """Sealed under a key of its own, or in clear where that is said and allowed."""
    section = document.audit
    if section is None or not section.good("directory", "key", "plain"):
        return
    table = section.value
    if table.plain is not None:
        _check_plain_audit(document, section, report)
        return
    _check_sealed(document, section, report, "audit")


def check_log(document: Document, report: Report) -> None:
    """The log file, where one is named, is sealed under a key that opens no recording."""
    section = document.log
    if section is None or not section.good("directory", "key"):
        return
    if section.value.directory is not None or section.value.key is not None:
        _check_sealed(document, section, report, "log")
    audit = document.audit
    is_both = section.value.directory is not None and audit is not None and audit.good("directory")
    if is_both and audit is not None and section.value.directory == audit.value.directory:
        report.add(section.key("directory"), "it is audit.directory too", "give each a place of its own")


def _check_sealed(
    document: Document, section: Section[AuditTable] | Section[LogTable], report: Report, example: str
) -> None:
    table = section.value
    for name in ("directory", "key"):
        if getattr(table, name) is None:
            report.add(section.key(name), "the key is missing", f'add it, like {name} = "{example}"')
    if table.key is None:
        return
    _check_name(report, section.key("key"), "keys", table.key, document.keys)
    users = [
        name
        for name, tenant in document.tenants.items()
        if table.key in (tenant.value.key, tenant.value.fallback_key)
    ]
    if users:
        what = f"tenant {users[0]} uses the key {table.key}, so whoever reads its recordings reads the {example} too"
        report.add(section.key("key"), what, f"add a [keys.NAME] table for the {example} alone")


def _check_plain_audit(document: Document, section: Section[AuditTable], report: Report) -> None:
    table = section.value
    if table.directory is not None or table.key is not None:
        report.add(
            section.key("plain"), "the log is either sealed or in clear", "remove it, or directory and key"
        )
    general = document.general
    if general.good("environment") and general.value.environment is Environment.PRODUCTION:
        cure = 'name a directory and a key instead, or set environment = "development" for tests'
        report.add(
            section.key("plain"), "an audit log in clear is for development, production refuses it", cure
        )


def check_regions(document: Document, report: Report) -> None:
    """A key is asked for in its own region only."""
    for section in document.keys.values():
        if section is None or not isinstance(section.value, AWSKey) or not section.good("key_id", "region"):
            continue
        match = KMS_KEY.fullmatch(section.value.key_id)
        if match is not None and match["region"] != section.value.region:
            what = f"the key is of region {match['region']}, not {section.value.region}"
            report.add(section.key("region"), what, f'write "{match["region"]}", or name another key')


def check_key_parts(document: Document, report: Report) -> None:
    """A key pair has at least one part here, and one holder of the private part."""
    for section in document.keys.values():
        if section is None or not isinstance(section.value, RSAKey):
            continue
        table = section.value
        if not section.good("public_key", "private_key", "transit"):
            continue
        if table.public_key is None and (table.private_key is None or table.transit is not None):
            report.add(
                section.key("public_key"), "the key is missing", "name the PEM file of the public part"
            )
        if table.private_key is not None and table.transit is not None:
            cure = "keep the one that is in use"
            report.add(
                section.key("transit"), "the private part is named twice, as file and in transit", cure
            )


def check_directories(document: Document, report: Report) -> None:
    """Spool, recordings and index are three places."""
    section = document.recording
    if section is None:
        return
    table = section.value
    texts = {"directory": table.directory, "spool": table.spool, "index": table.index}
    places = {
        name: document.file(text).resolve()
        for name, text in texts.items()
        if section.good(name) and text is not None
    }
    audit = document.audit
    if audit is not None and audit.good("directory") and audit.value.directory is not None:
        place = document.file(audit.value.directory).resolve()
        if place in places.values():
            report.add(
                audit.key("directory"), "it is a place of [recording] too", "give each a place of its own"
            )
    seen: dict[Path, str] = {}
    for name, place in places.items():
        other = seen.setdefault(place, name)
        if other != name:
            report.add(
                section.key(name), f"it is the place of recording.{other} too", "give each a place of its own"
            )
    for name in ("directory", "spool"):
        if name in places and places[name].exists() and not places[name].is_dir():
            cure = "name a directory; it is made when missing"
            report.add(section.key(name), f"{places[name]} is not a directory", cure)
    index = places.get("index")
    if index is not None and index.is_dir():
        report.add(section.key("index"), f"{index} is a directory", "name a file; it is made when missing")


def check_limits(document: Document, report: Report) -> None:
    """A trunk's limit above the machine's would never be reached."""
    limits = document.limits
    if limits is None or not limits.good("max_calls"):
        return
    for trunk in document.trunks.values():
        if trunk.is_set("max_calls") and trunk.value.max_calls > limits.value.max_calls:
            what = f"{trunk.value.max_calls} is above limits.max_calls {limits.value.max_calls}"
            report.add(trunk.key("max_calls"), what, "lower it or raise limits.max_calls")


def check_pause_codes(document: Document, report: Report) -> None:
    """Both codes or none, and never one that is complete before the other can be."""
    for trunk in document.trunks.values():
        if not trunk.good("pause_code", "resume_code"):
            continue
        pause, resume = trunk.value.pause_code, trunk.value.resume_code
        if (pause is None) is not (resume is None):
            missing = "pause_code" if pause is None else "resume_code"
            report.add(trunk.key(missing), "only one of the two codes is set", f"set {missing} too")
        elif (
            pause is not None
            and resume is not None
            and (pause.startswith(resume) or resume.startswith(pause))
        ):
            what = "one of pause_code and resume_code is the beginning of the other"
            report.add(trunk.key("resume_code"), what, 'give codes that differ earlier: "*71" and "*72"')


def check_control(document: Document, report: Report) -> None:
    """A name that the kernel can't take would be found out only when the process starts."""
    control = document.control
    if control is None or not control.good("socket"):
        return
    size = len(os.fsencode(document.file(control.value.socket).name))
    if size > MOST_SOCKET_NAME_BYTES:
        what = f"the file's name has {size} bytes, a socket's may have {MOST_SOCKET_NAME_BYTES}"
        report.add(control.key("socket"), what, 'name a shorter one: "/run/sealtrunk/control.sock"')


def check_trunk_count(document: Document, report: Report) -> None:
    """Each trunk takes two of the SIP library's accounts."""
    if len(document.trunks) > MOST_TRUNKS:
        what = f"{len(document.trunks)} trunks are more than the {MOST_TRUNKS} that one process serves"
        report.add(("trunks",), what, "split them over several processes, each with its own listener")


ALL_CHECKS = (
    check_index,
    check_references,
    check_uniqueness,
    check_ports,
    check_addresses,
    check_environment,
    check_audit,
    check_log,
    check_signing,
    check_regions,
    check_key_parts,
    check_directories,
    check_sink,
    check_limits,
    check_pause_codes,
    check_control,
    check_trunk_count,
)
