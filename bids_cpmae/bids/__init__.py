"""The BIDS side: scans found, names given, sidecars and tables written. Voxels are not looked at in here."""
