"""Mutation tests: errors put into the code on purpose, each of which some test must detect.

`python -m tests.mutants` runs the check (`runner.py`). The errors are listed in `library.txt` (data, augmentation,
models, losses, training), `suite.txt` (workloads, runner, records, exports) and `judging.txt` (scores, gates,
comparisons, reports, exit codes):

    tests/hw6core/test_train.py                                 tests that must fail, for all below up to the blank line
    make_optimizer                                              where: a function, class or constant
        SGD without momentum: momentum=«0.9, nesterov=True→0.0»     what then goes wrong, and what is replaced by what
        gradients are added up: «self.optimizer.zero_grad()⏎→»      ⏎ is the end of a line

The text between « and → is in the code, the text between → and » replaces it, and the text around them selects one of
several occurrences.

Tools that mutate operators automatically (mutmut, cosmic-ray) do not know what an error means, and report hundreds of
equivalent changes; the mutants here are meaningful: "not run" is passed, only the first seed is judged.
"""
