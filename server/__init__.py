"""The centre: asks, gathers, aggregates and commits each round, and never sees an example."""
