"""What validation cases tell about results: expected Dice, volume intervals, when an outline is usable."""
