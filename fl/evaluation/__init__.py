"""What a model has to fulfil, and whether it does.

goals.py     thresholds on metrics, and whether they look within reach before anything is trained
"""
