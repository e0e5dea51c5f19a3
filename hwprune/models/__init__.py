"""Networks: one file per architecture, and the registry that builds any of them by name."""
