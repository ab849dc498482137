"""Sessions: what a request may do to them, decided and proposed; `service.py` first."""

from tokmesh.sessions.query import SessionFilter, SessionPage
from tokmesh.sessions.service import Created, Rotated, Sessions

__all__ = ["Created", "Rotated", "SessionFilter", "SessionPage", "Sessions"]
