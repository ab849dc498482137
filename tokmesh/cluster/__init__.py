"""Many nodes as one: what they tell each other about themselves, and what a node may still say by what it heard."""
