"""One verb each, from its inputs to its saved results; the command line only calls them."""
