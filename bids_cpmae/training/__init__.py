"""Everything that makes what the package ships: template, masks, weights, demo tokens. Not needed to run the app."""
