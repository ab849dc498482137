"""API keys: made and switched (`service.py`), and verified when they are presented (`authenticator.py`)."""

from tokmesh.keys.authenticator import Authenticator
from tokmesh.keys.service import CreatedKey, Keys

__all__ = ["Authenticator", "CreatedKey", "Keys"]
