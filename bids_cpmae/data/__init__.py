"""What ships with the package: template, masks, weights, demo tokens, and their licence."""
