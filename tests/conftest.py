"""Servers that several test modules share: one process each for the whole run, started when first asked for."""

from __future__ import annotations

from support.openbao import openbao

__all__ = ["openbao"]
