"""Speed comparisons with other implementations and libraries, and checks that need a GPU."""
