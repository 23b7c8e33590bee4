"""What federated learning and its lifecycle are: plain Python, NumPy and PyTorch; no Ray, no Hydra."""
