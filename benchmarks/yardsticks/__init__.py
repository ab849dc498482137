"""Other servers that do the same job, or less of it, to measure TokMesh against. They share no code with it."""
