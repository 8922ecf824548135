"""What people type: the options of each family, and how a command line becomes them."""
