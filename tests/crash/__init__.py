"""Tests that break the log's world: killed writers, failing syncs, full disks, flipped bits. They need strace and
root."""
