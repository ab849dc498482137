"""What lies on disk: the log's segments, snapshots, and how both are read, repaired and encrypted."""
