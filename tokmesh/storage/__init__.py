"""What lies on disk beside the log: recovery, snapshots, backups."""
