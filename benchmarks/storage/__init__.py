"""Storage at size: memory, start, snapshots, expiry and growth with millions of sessions, beside Redis with the same ones."""
