"""What a cluster costs: a node of three beside a node alone."""
