"""From columns of a table to features: fitted records, the same bits offline, online and inside a model."""
