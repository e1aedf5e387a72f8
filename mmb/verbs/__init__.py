"""The verbs of ``mmb``: each is the function in the module of its name, and imports what it runs when it is called.

PyTorch and MONAI take seconds to load, which help texts and errors in arguments should not wait for.
"""
