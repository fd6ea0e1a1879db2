"""CP-MAE: two volumetric VQ-VAEs and a masked autoencoder over their tokens. Pure torch, no files but weights."""
