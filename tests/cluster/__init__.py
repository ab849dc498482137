"""Tests of many nodes: judgement from heartbeats, with hand-made beats and in a simulated cluster with every fault of a network."""
