"""Snapshots of a node's state: taking them while it serves, keeping some, and loading one at a start or for a restore."""
