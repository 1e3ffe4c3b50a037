"""The guard is guarded: errors put into the code on purpose, each of which some test must notice.

`python -m tests.mutants` runs the check, carried out by `runner.py`. The errors are listed in `library.txt` (data,
augmentation, models, losses, training), `suite.txt` (workloads, runner, records, exports) and `judging.txt` (scores,
gates, comparisons, reports, exit codes):

    tests/hw6core/test_train.py                                 tests that must fail, for all below up to the blank line
    make_optimizer                                              where: a function, class or constant
        SGD without momentum: momentum=«0.9, nesterov=True→0.0»     what then goes wrong, and what is replaced by what
        gradients are added up: «self.optimizer.zero_grad()⏎→»      ⏎ is the end of a line

What is between « and → stands in the code, what is between → and » takes its place, and the text around them says
which of several is meant.

Tools that change operators on their own (mutmut, cosmic-ray) cannot be told what an error means, and hold hundreds of
equivalent changes against one; these here have names that people argue about: "not run" is passed, only the first seed
is judged.
"""
