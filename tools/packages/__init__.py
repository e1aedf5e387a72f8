"""Packages of bundles, and the index from which they are downloaded."""
