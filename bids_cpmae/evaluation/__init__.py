"""What the refaced scans give away, what they keep, and what they cost: privacy, anatomy, time."""
