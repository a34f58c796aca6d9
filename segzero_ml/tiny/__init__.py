"""The bundled pair: tabletop scenes, the recipes trained on them, and the weights."""
