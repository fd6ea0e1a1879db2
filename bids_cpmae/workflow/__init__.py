"""nipype carries a scan: one factory for a participant, one for a scan, thin interfaces over pure functions."""
