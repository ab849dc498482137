"""Side-by-side load: every subject in one run on one machine, server and generator each on a core of its own."""
