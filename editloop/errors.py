"""The one exception that a person is meant to read."""


class EditLoopError(Exception):
    """Something a user can mend: the message names the thing, its value, the rule and the next step.

    The command line prints the message alone and exits with 1; any other exception is a defect and keeps its traceback.
    """
