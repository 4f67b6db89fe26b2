"""What the four packages share (store, state) and the shell around them (configuration, wiring, command line)."""
