"""What surrounds the server on its machine: process, data directory, listeners, certificates, periodic work."""
