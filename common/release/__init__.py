"""Release of bundles: packages and their index, shipped weights, and the leaderboard."""
