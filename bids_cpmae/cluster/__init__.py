"""A dataset refaced on a cluster: job scripts for Slurm."""
