"""Where runs are carried out: in this process, in several on this machine, on a Ray cluster or in shards."""
