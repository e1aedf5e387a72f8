"""What only maintainers of the repository run; it is not part of an installation."""
