"""What travels with a model in a wheel or a .pyz, as the package ``meadow_model``. Imports nothing of ours by name."""
