"""Studies to try the software on."""
