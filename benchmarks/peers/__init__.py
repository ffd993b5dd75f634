"""The trainers that Limbeck's is compared with, each run as its users run it, in an environment of its own."""
