"""Reports: made of the files that the stages left, and of nothing else."""
