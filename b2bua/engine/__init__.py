"""Live calls: SIP and recorder happenings become events, `b2bua.call` decides, its commands are carried out here."""

from b2bua.engine.engine import Engine

__all__ = ["Engine"]
