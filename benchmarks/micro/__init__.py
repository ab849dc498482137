"""Micro benchmarks of single parts, in process, through pytest-benchmark. `make test` runs each once, untimed."""
