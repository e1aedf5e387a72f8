"""Commands for maintainers of the repository; they are not part of an installation."""
