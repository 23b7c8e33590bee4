"""Algorithms: one file a paper, both halves, in the paper's letters. ``algorithm.py`` says what an algorithm is."""
