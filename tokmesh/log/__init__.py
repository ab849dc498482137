"""The one log: record types and the logs that make them durable."""
