"""Bad input of every kind: our own corpora of documents, strings and packets, and what must come of each."""
