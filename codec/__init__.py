"""Pictures and networks: video in and out, the networks, how they are fitted, packed and run."""
