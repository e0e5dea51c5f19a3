"""Latency: measure networks honestly, profile a search space, and predict every network of it."""
