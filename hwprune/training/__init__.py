"""Training of ordinary networks: one loop, resumable, shared with PruningNet.

This file imports nothing, so `hwprune.training.settings` can be read without loading torch.
"""
