"""Online learning behind real-time prediction: a stream of labelled events, each first predicted and then learned from.

    events.py   an event as numbers, or why it is none: columns, ranges, labels
    guard.py    what is refused, and how far back to go: pure decisions from what was seen
    learner.py  a version's own module, a chunk of events at a time, and the states it can go back to

Nothing here knows the registry: whoever starts a learner hands it a function that makes a state a version.
"""
