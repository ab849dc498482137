cdef class Router:
    cdef:
        readonly tuple routes
        readonly tuple templates
        dict _literal     # path → {method: number}
        dict _patterns    # segment count → {(literal or None, …): {method: number}}

    cpdef tuple match(self, str method, str path)
    cdef tuple _match_pattern(self, str path)
