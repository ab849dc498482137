cpdef enum Fit:
    FIT = 0         # these fields, and no more
    MISFIT = 1      # a field that is not known, or not of its kind
    DOUBTFUL = 2    # the parser may have dropped one of two equal keys

cpdef bint is_of_kind(object value, object kind) except -1
