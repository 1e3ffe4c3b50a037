"""The same work as the assignment and public solutions do it: what the suite's speed is measured against.

Written as one would without thinking of speed, and no slower: files are decoded whenever a batch asks for them, masks
are one-hot, everything is float32 in the default layout, the loss is read after every step, Dice is summed in loops.
Networks, optimizer, batch and number of steps are those of the suite; tests check that losses and scores agree.
"""
