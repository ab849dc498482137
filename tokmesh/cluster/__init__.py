"""A node among many: the stream on NATS JetStream that is the cluster's log, and what nodes tell each other beside it."""
