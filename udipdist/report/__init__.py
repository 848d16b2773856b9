"""One self-contained HTML page about a run: what went in, what was learnt, what was found, what it cost."""
