"""The whole loop, broken at random moments and called again as a user would, until its outcome is there."""
