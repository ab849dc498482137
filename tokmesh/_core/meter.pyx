"""Requests counted and timed by (method, route template, status): closed sets only, dense arrays, no look-up by string.

Unknown methods count as "other", unknown paths as "unmatched", unlisted statuses as "other": nothing that a client sends can add
a series.
"""

from libc.stdint cimport int64_t, uint64_t

from tokmesh._core.counters cimport CounterBlock
from tokmesh._core.histogram cimport HistogramBlock

from tokmesh._core.histogram import LATENCY_BOUNDS_NS

METHODS = ("GET", "POST", "other")
STATUSES = (200, 400, 401, 403, 404, 405, 408, 409, 413, 417, 422, 429, 431, 500, 501, 503, 504, 505)
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
UNMATCHED_TEMPLATE = "unmatched"

# What is shown at 0 from the first scrape, so that no event is the birth of its series, which a rate cannot see: what any guarded
# route can answer, what a POST can besides, and what becomes of requests that have no route.
_COMMON_STATUSES = frozenset((200, 400, 401, 403, 404, 429, 500, 503))
_POST_STATUSES = _COMMON_STATUSES | {409, 413}
_UNMATCHED_STATUSES = frozenset((400, 404, 405, 408, 413, 431, 500, 501, 503, 505))
_COMMON_CLASSES = frozenset(("2xx", "4xx", "5xx"))
_UNMATCHED_CLASSES = frozenset(("4xx", "5xx"))

cdef enum:
    STATUS_COUNT = 19      # len(STATUSES) and "other"
    CLASS_COUNT = 5


cdef class Meter:
    """Meters of one worker. routes: objects with `.method` and `.template`; templates: the router's, in its order."""

    def __init__(self, routes, templates):
        self.templates = (*templates, UNMATCHED_TEMPLATE)
        self._template_count = len(self.templates)
        self.counts = CounterBlock(len(METHODS) * self._template_count * STATUS_COUNT)
        self.latency = HistogramBlock(len(METHODS) * self._template_count * CLASS_COUNT, LATENCY_BOUNDS_NS)
        self._declared = frozenset((route.method, route.template) for route in routes)
        for status in range(600):
            self._status_index[status] = STATUSES.index(status) if status in STATUSES else STATUS_COUNT - 1

    cdef void observe(self, int method, Py_ssize_t template, int status, uint64_t elapsed_ns) noexcept nogil:
        cdef Py_ssize_t pair = method * self._template_count + template
        self.counts.add(pair * STATUS_COUNT + self._status_index[status], 1)
        self.latency.observe(pair * CLASS_COUNT + status // 100 - 1, elapsed_ns)

    cpdef int note_exemplar(self, int method, Py_ssize_t template, int status, uint64_t elapsed_ns, str trace_id,
                            int64_t at_ms) except -1:
        """For a request that is traced, after `observe` with the same values: its trace id becomes its bucket's exemplar."""
        return self.latency.note_exemplar(
            (method * self._template_count + template) * CLASS_COUNT + status // 100 - 1, elapsed_ns, trace_id, at_ms)

    def series(self) -> list[tuple[str, str, str, int]]:
        """(method, route, status, count): what is shown from the first scrape, and all that have counted."""
        found = []
        labels = [str(status) for status in STATUSES] + ["other"]
        for position, value in enumerate(self.counts.read_all()):
            pair, status = divmod(position, STATUS_COUNT)
            method, template = divmod(pair, self._template_count)
            if value or (status < len(STATUSES) and STATUSES[status] in self._shown_statuses(method, template)):
                found.append((METHODS[method], self.templates[template], labels[status], value))
        return found

    def durations(self) -> list[tuple[str, str, str, int]]:
        """(method, route, status class, row of `latency`), by the same rule."""
        found = []
        for row in range(self.latency.rows):
            pair, status_class = divmod(row, CLASS_COUNT)
            method, template = divmod(pair, self._template_count)
            names = (METHODS[method], self.templates[template])
            if names in self._declared:
                shown = _COMMON_CLASSES
            else:
                shown = _UNMATCHED_CLASSES if template == self._template_count - 1 else ()
            if STATUS_CLASSES[status_class] in shown or not self.latency.is_empty(row):
                found.append((*names, STATUS_CLASSES[status_class], row))
        return found

    def _shown_statuses(self, method, template) -> frozenset[int]:
        if (METHODS[method], self.templates[template]) in self._declared:
            return _POST_STATUSES if METHODS[method] == "POST" else _COMMON_STATUSES
        return _UNMATCHED_STATUSES if template == self._template_count - 1 else frozenset()
