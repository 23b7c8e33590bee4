"""What a model has to fulfil, and whether it does.

goals.py          thresholds on metrics, and whether they look within reach before anything is trained
answers.py        what a model answered to held-back examples, and the figures that this makes
intervals.py      between what a figure lies: bootstrap
calibration.py    whether what it is sure of comes true
classes.py        precision, recall and F1, class by class
slices.py         parts of the examples, and which is served worst
by_client.py      a version on each client's own test part
fairness.py       groups of a column compared
robustness.py     what noise, shifts, missing values and an adversary leave
explanation.py    which inputs matter
paired.py         two models on the same examples
resources.py      size and latency
held_back.py      all of these together: the evidence `evaluate`
distribution.py   a metric over clients: deciles, the worst tenth, Jain's index, Gini; clients_picture.py draws it
acceptance.py     that evidence against success criteria: the verdict, with every reason
card.py           the model card
plots.py          the evidence drawn
"""
