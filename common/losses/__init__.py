"""Losses that several papers share: plain modules and functions on tensors; a paper's own is in its file.

A loss is called with a network's or a training step's output in training mode and the label. After a call, its
attribute ``terms`` has the latest value of each term by name, unweighted and detached, for handlers to print.
"""
