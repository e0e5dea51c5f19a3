"""The structure of a network: its channel groups, and how to cut a pruned network out of it."""

from hwprune.structure.rules import rule

__all__ = ["rule"]
