"""The simulated devices: the only home of private data, and of Ray in training."""
