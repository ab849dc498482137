"""Measurements: `micro` (pytest-benchmark, in process) and `load` (side by side with other servers, over sockets)."""
