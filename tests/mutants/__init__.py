"""Planted defects: each one that storage could have, and the tests that must see it."""
