"""The administration of a key in AWS KMS: rotation on demand, disabling, deletion after the shortest waiting time.

Source: AWS KMS API reference, RotateKeyOnDemand, DisableKey, ScheduleKeyDeletion, DescribeKey.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from recording.keys.aws_kms import AWSKMSProvider
from recording.keys.errors import KeyAnswerError, KeyOperationError
from recording.settings import AWSKMSKeySettings

DELETION_WAIT_DAYS: Final = 7  # API reference, ScheduleKeyDeletion: the shortest there is
_DOOMED: Final = "PendingDeletion"


class _Service(AWSKMSProvider):
    """The provider's connection, with the requests that a provider has not."""

    def manage(self, operation: str, **parameters: object) -> Mapping[str, Any]:
        """By boto3's name of the operation.

        The key goes by its bare id, which means one of the administrator's own account: the API allows no other.
        """
        return self._call(
            getattr(self._client, operation), KeyId=self._key_id.rpartition("/")[2], **parameters
        )


class AWSKMSAdministration:
    """One key, under the administrator's credentials of boto3's chain."""

    def __init__(self, name: str, settings: AWSKMSKeySettings) -> None:
        """No request is sent. Raises KeyConfigurationError."""
        self.name = name
        self._service = _Service(name, settings)

    def rotate(self) -> str:
        """AWS makes the new version within minutes, and keeps older ones for decryption as long as the key exists."""
        self._service.manage("rotate_key_on_demand")
        return "the key service took the order; see the key's versions in `b2bua keys status` in some minutes"

    def disable(self) -> str:
        self._service.manage("disable_key")
        self._require_state("Disabled")
        return "disabled"

    def disable_older(self) -> str:
        raise KeyOperationError(
            f"keys.{self.name}: AWS KMS keeps every version of a key usable for as long as the key exists; "
            "retire it to another key"
        )

    def destroy(self) -> str:
        """The key opens nothing from now on; until the date returned AWS can be told to keep it."""
        if self._metadata().get("KeyState") != _DOOMED:
            self._service.manage("schedule_key_deletion", PendingWindowInDays=DELETION_WAIT_DAYS)
        at = self._require_state(_DOOMED).get("DeletionDate")
        if not isinstance(at, datetime):
            raise KeyOperationError(f"keys.{self.name}: the key service names no date of deletion")
        return f"unusable now, destroyed on {at.date().isoformat()}; until then the deletion can be cancelled"

    def _require_state(self, state: str) -> Mapping[str, Any]:
        metadata = self._metadata()
        if metadata.get("KeyState") != state:
            raise KeyOperationError(
                f"keys.{self.name}: the key service took the order and the key is not {state}"
            )
        return metadata

    def _metadata(self) -> Mapping[str, Any]:
        metadata = self._service.manage("describe_key").get("KeyMetadata")
        if not isinstance(metadata, Mapping):
            raise KeyAnswerError(f"keys.{self.name}: the key service described no key")
        return metadata
