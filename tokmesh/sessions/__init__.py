"""Sessions: what a request may do to them, decided and proposed; `service.py` first."""

from tokmesh.sessions.operations import Created, Judged, Revoked, Rotated, SessionOperations
from tokmesh.sessions.query import SessionFilter, SessionPage
from tokmesh.sessions.service import Sessions

__all__ = ["Created", "Judged", "Revoked", "Rotated", "SessionFilter", "SessionOperations", "SessionPage", "Sessions"]
