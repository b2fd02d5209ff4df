"""What a command needs of the terminal: streams, checked paths, exit codes."""
