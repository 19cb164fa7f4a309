"""Questions and changes larger than a filter; one module each."""
