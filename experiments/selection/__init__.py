"""Which model: cross-validation, search, error analysis, ensembles, and all of them within a budget."""
