"""Bundles as packages and as folders of the model zoo, and authors' weights as weights of our networks."""
