"""Facts out: page, console, JSON, CSV, SEG and SR."""
