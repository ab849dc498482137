"""Tests of what measures: the micro benchmarks run, the load harness counts right."""
