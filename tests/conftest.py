"""Servers that several test modules share: one process each for the whole run, started when first asked for."""

from __future__ import annotations

from support.openbao import openbao
from support.rgw import rgw
from support.s3 import moto_s3
from support.softhsm import softhsm

__all__ = ["moto_s3", "openbao", "rgw", "softhsm"]
