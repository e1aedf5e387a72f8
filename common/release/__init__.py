"""What is handed out: packages of bundles and their index, weights that ship, the leaderboard."""
