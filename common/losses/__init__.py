"""Losses, one file per paper or named loss: plain modules on tensors.

Every loss is called with a network's or method's output in training mode and the label. After a call, its attribute
``terms`` has the latest value of each term by name, unweighted and detached, for handlers to print.
"""
