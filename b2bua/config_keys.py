"""The tables `[keys.NAME]` of the configuration file, one per key provider, and the settings made of them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, assert_never

from b2bua import config_values as values
from b2bua.config_table import PathText, Table, default_of, documented, read_by
from recording.settings import (
    AWSKMSKeySettings,
    KeySettings,
    LocalKeySettings,
    PKCS11KeySettings,
    RSAKeySettings,
    TLSFloor,
    TransitSettings,
    VaultTransitKeySettings,
)


class KeyProviderName(enum.Enum):
    """Values of `keys.NAME.provider`."""

    LOCAL = "local"
    AWS_KMS = "aws-kms"
    VAULT_TRANSIT = "vault-transit"
    PKCS11 = "pkcs11-aes-kw"
    RSA = "rsa-oaep-sha256"


ProviderValue = Annotated[KeyProviderName, read_by(values.one_of(KeyProviderName, values.by_value))]
FloorValue = Annotated[TLSFloor, read_by(values.one_of(TLSFloor, values.by_value))]
KMSKeyValue = Annotated[str, read_by(values.read_kms_key)]
HTTPSValue = Annotated[str, read_by(values.read_https_url)]
ServerValue = Annotated[str, read_by(values.read_https_server)]

_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
_LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_PATH_PATTERN = rf"^{_SEGMENT}(/{_SEGMENT}){{0,7}}$"


def _timeout() -> Any:
    return documented("Seconds to wait for an answer.", "5.0", default=5.0, ge=0.1, le=60.0, strict=False)


def _floor() -> Any:
    return documented(
        'Lowest TLS version spoken to it. `"1.2"` is an exception, counted and shown in the posture report.',
        '"1.3"',
        default=TLSFloor.TLS_1_3,
    )


class LocalKey(Table):
    """A key-encryption key in a file: development only."""

    provider: ProviderValue = documented("Which provider holds the key-encryption key.", '"local"')
    kek: PathText = documented("File of 32 bytes, mode 0600.", '"keys/dev.kek"')


class AWSKey(Table):
    """A key-encryption key in AWS KMS. Credentials come from boto3's own chain, never from this file."""

    provider: ProviderValue = documented("Which provider holds the key-encryption key.", '"aws-kms"')
    key_id: KMSKeyValue = documented("ARN of the key.", f'"{values.KMS_KEY_EXAMPLE}"')
    region: str = documented("AWS region.", '"eu-central-1"', pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")
    endpoint_url: HTTPSValue | None = documented(
        "Another endpoint, https only. Default: the region's.", '"https://kms.example.test"', default=None
    )
    ca: PathText | None = documented(
        "PEM file with the endpoint's authority. Default: the platform's.", '"tls/kms-ca.pem"', default=None
    )
    timeout_s: float = _timeout()
    tls_floor: FloorValue = _floor()


class TransitTable(Table):
    """A transit mount of a Vault or OpenBao server, and a key of it."""

    address: ServerValue = documented("The server, https only.", '"https://vault.example.test:8200"')
    key: str = documented("Name of the key in the mount.", '"recordings"', pattern=_NAME_PATTERN)
    token_file: PathText = documented(
        "File of mode 0600 with a token, read again whenever it changes.", '"keys/vault.token"'
    )
    mount: str = documented(
        "Path of the transit mount.",
        '"transit"',
        default=default_of(TransitSettings, "mount"),
        pattern=_PATH_PATTERN,
    )
    namespace: str | None = documented(
        "Namespace of the mount.", '"clinic"', default=None, pattern=_PATH_PATTERN
    )
    server_id: str | None = documented(
        "What key ids in recordings call the server; keep it when the address changes. Default: the address's "
        "host and port.",
        '"vault.example.test"',
        default=None,
        pattern=_NAME_PATTERN,
    )
    ca: PathText | None = documented(
        "PEM file with the server's authority. Default: the platform's.", '"tls/vault-ca.pem"', default=None
    )
    timeout_s: float = _timeout()
    tls_floor: FloorValue = _floor()


class VaultKey(TransitTable):
    """A derived key of Vault's or OpenBao's transit engine, which binds data keys to file and tenant."""

    provider: ProviderValue = documented("Which provider holds the key-encryption key.", '"vault-transit"')


class TokenKey(Table):
    """AES-256 keys that cannot leave a PKCS#11 token. The newest of KEY.v1, KEY.v2 and so on wraps."""

    provider: ProviderValue = documented("Which provider holds the key-encryption key.", '"pkcs11-aes-kw"')
    module: PathText = documented(
        "The vendor's PKCS#11 library; it runs inside this process.", '"/usr/lib/softhsm/libsofthsm2.so"'
    )
    token_label: str = documented("Label of the token.", '"clinic"', pattern=_LABEL_PATTERN)
    key: str = documented("Label of the keys, without `.vN`.", '"recordings"', pattern=_LABEL_PATTERN)
    pin_file: PathText = documented(
        "File of mode 0600 with the user's PIN. A PIN that was refused is not tried again before it changes.",
        '"keys/clinic.pin"',
    )
    timeout_s: float = _timeout()


class RSAKey(Table):
    """An RSA key pair of 3072 bits or more. The public part wraps with no network; where the private part is, it opens.

    A recorder's configuration names `public_key` alone, a reader's `private_key` or the table `transit`.
    """

    provider: ProviderValue = documented("Which provider holds the key-encryption key.", '"rsa-oaep-sha256"')
    public_key: PathText | None = documented(
        "PEM file with the public part.", '"keys/escrow.pub"', default=None
    )
    private_key: PathText | None = documented(
        "PEM file of mode 0600 with the private part, unencrypted PKCS #8.", '"keys/escrow.key"', default=None
    )
    transit: TransitTable | None = documented(
        "Table `keys.NAME.transit`: the private part is a key of a transit mount. Needs `public_key`.",
        '{ address = "https://vault.example.test:8200", key = "escrow", token_file = "keys/reader.token" }',
        default=None,
    )


KeyTable = LocalKey | AWSKey | VaultKey | TokenKey | RSAKey

KEY_TABLES: Mapping[KeyProviderName, type[KeyTable]] = {
    KeyProviderName.LOCAL: LocalKey,
    KeyProviderName.AWS_KMS: AWSKey,
    KeyProviderName.VAULT_TRANSIT: VaultKey,
    KeyProviderName.PKCS11: TokenKey,
    KeyProviderName.RSA: RSAKey,
}


def key_settings(table: KeyTable, file: Callable[[str], Path]) -> KeySettings:
    """The settings of one table in which no check found a fault; `file` makes its paths absolute."""
    match table:
        case LocalKey():
            return LocalKeySettings(kek_path=file(table.kek))
        case AWSKey():
            return AWSKMSKeySettings(
                key_id=table.key_id,
                region=table.region,
                endpoint_url=table.endpoint_url,
                ca_path=None if table.ca is None else file(table.ca),
                timeout_s=table.timeout_s,
                tls_floor=table.tls_floor,
            )
        case VaultKey():
            return transit_settings(table, file)
        case TokenKey():
            return PKCS11KeySettings(
                module_path=file(table.module),
                token=table.token_label,
                key=table.key,
                pin_path=file(table.pin_file),
                timeout_s=table.timeout_s,
            )
        case RSAKey():
            return RSAKeySettings(
                public_key_path=None if table.public_key is None else file(table.public_key),
                private_key_path=None if table.private_key is None else file(table.private_key),
                transit=None if table.transit is None else transit_settings(table.transit, file),
            )
        case _:
            assert_never(table)


def transit_settings(table: TransitTable, file: Callable[[str], Path]) -> VaultTransitKeySettings:
    """As `key_settings`, of a transit mount and its key."""
    return VaultTransitKeySettings(
        key=table.key,
        server=TransitSettings(
            address=table.address,
            token_path=file(table.token_file),
            mount=table.mount,
            namespace=table.namespace,
            server_id=table.server_id,
            ca_path=None if table.ca is None else file(table.ca),
            timeout_s=table.timeout_s,
            tls_floor=table.tls_floor,
        ),
    )
