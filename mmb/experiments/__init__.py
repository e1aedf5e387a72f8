"""Many trainings: lists of methods, the leaderboard, Slurm and dry runs."""
