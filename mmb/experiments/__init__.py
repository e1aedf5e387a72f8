"""Many trainings: lists of methods, the leaderboard, Slurm, dry runs, and federated training."""
