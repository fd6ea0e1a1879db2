"""What ships with the package: template, masks, weights, demo tokens, and their licence."""

WEIGHTS, PORTRAIT = "weights.safetensors", "portrait.npz"
