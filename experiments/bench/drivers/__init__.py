"""Programs that run a peer on a bench's task. They import nothing of ours but each other, because a peer's interpreter
has nothing of ours: ``experiments.bench.systems`` copies this package to where that interpreter finds it.
"""
