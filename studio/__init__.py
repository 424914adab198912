"""The studio: a page that shows runs while they train, and plays what their models make.

``runs`` reads the files that training writes; ``job`` says what may be asked for; ``worker`` is the child process that
rolls out, ``rollouts`` hands it one job after another; ``storage`` keeps what visitors bring and get for an hour;
``server`` is what answers, and what it refuses; ``page`` and ``player`` are what one sees.
"""
