"""PruningNet: one network that gives weights for every network of a search space.

This file imports nothing, so `hwprune.pruningnet.settings` can be read without loading torch.
"""
