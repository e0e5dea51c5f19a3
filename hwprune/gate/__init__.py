"""The gate for CI: may this network pass? Verdicts, what is kept of them, and how they are written."""
