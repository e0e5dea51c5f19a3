"""Images: reading them from disk, augmenting them in batches, and splitting them for the search."""
