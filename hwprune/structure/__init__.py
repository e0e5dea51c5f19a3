"""The structure of a network: its channel groups, and how to cut a pruned network out of it."""
