"""What each candidate is, and which are used."""
