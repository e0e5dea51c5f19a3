"""Where images come from: one file per kind, each giving a train and a test `Source`."""
