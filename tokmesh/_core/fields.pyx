"""The fields of a request's body: whether they are those that its route takes, and whether their texts keep the rules of sessions.

Every body of every route comes through here, so that what is good costs no Python object. What is refused is named elsewhere:
api/body.py tells which fault of form it is, sessions/rules.py which rule of a field. Why counting colons finds a key that was there
twice is told in api/body.py.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem, PyDict_Next, PyDict_Size
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DATA, PyUnicode_GET_LENGTH
from libc.stdint cimport uint8_t
from libc.string cimport strlen

from tokmesh._core.layout cimport DEVICE_CHARS_MAX, UA_CHARS_MAX, USER_CHARS_MAX


cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET
    struct in_addr:
        pass
    int inet_pton(int family, const char* text, void* address)


cdef enum:
    DATA_KEY_CHARS_MAX = 64
    DATA_VALUE_CHARS_MAX = 1024


def judge(dict fields not None, dict kinds not None, bytes body not None) -> int:
    """A Fit, as a plain number: of the parsed `fields` to `kinds`, by name `str`, `int`, `bool`, `list` (of strings) or `dict`
    (string to string).

    body: the text that they were parsed from, as UTF-8. O(len(body)).
    """
    cdef PyObject* name = NULL
    cdef PyObject* value = NULL
    cdef PyObject* kind
    cdef Py_ssize_t position = 0, pairs_count = PyDict_Size(fields), colons_count
    while PyDict_Next(fields, &position, &name, &value):
        kind = PyDict_GetItem(kinds, <object>name)
        if kind == NULL or not is_of_kind(<object>value, <object>kind):
            return <int>MISFIT
        if <object>kind is dict:
            pairs_count += PyDict_Size(<object>value)
    colons_count = _count_colons(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    if colons_count == pairs_count:
        return <int>FIT
    if b"\\u003" not in body and colons_count == pairs_count + _colons_in_strings(fields):
        return <int>FIT
    return <int>DOUBTFUL


cpdef bint is_of_kind(object value, object kind) except -1:
    """Whether a parsed value is of one of the kinds that a field can have."""
    cdef PyObject* name = NULL
    cdef PyObject* text = NULL
    cdef Py_ssize_t position = 0
    if type(value) is not kind:
        return False
    if kind is dict:
        while PyDict_Next(value, &position, &name, &text):
            if type(<object>text) is not str:
                return False
    elif kind is list:
        for element in <list>value:
            if type(element) is not str:
                return False
    return True


cdef Py_ssize_t _count_colons(const char* text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t index, count = 0
    for index in range(size):
        count += text[index] == c":"
    return count


cdef Py_ssize_t _colons_of(object text) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    return _count_colons(utf8, size)


cdef Py_ssize_t _colons_in_strings(dict fields) except -1:
    # Colons in the keys and strings of fields that fit; their own names have none.
    cdef Py_ssize_t count = 0
    for value in fields.values():
        if type(value) is str:
            count += _colons_of(value)
        elif type(value) is dict:
            for name, text in (<dict>value).items():
                count += _colons_of(name) + _colons_of(text)
        elif type(value) is list:
            for text in <list>value:
                count += _colons_of(text)
    return count


def are_plain(str user_id not None, str device_id not None, str user_agent not None) -> bool:
    """Whether these break no rule of sessions/rules.py and are stored as they are, as far as is seen at once: they have the right
    lengths and nothing but printable ASCII. Of others the rules tell."""
    return (
        PyUnicode_GET_LENGTH(user_id) >= 1 and _is_plain(user_id, USER_CHARS_MAX) and _is_plain(device_id, DEVICE_CHARS_MAX)
        and _is_plain(user_agent, UA_CHARS_MAX)
    )


cdef bint _is_plain(str text, Py_ssize_t chars_max) noexcept:
    cdef Py_ssize_t index, size = PyUnicode_GET_LENGTH(text)
    cdef const uint8_t* ascii_text
    cdef bint plain = True
    if size > chars_max or not PyUnicode_IS_ASCII(text):
        return False
    ascii_text = <const uint8_t*>PyUnicode_DATA(text)
    for index in range(size):
        plain &= 0x20 <= ascii_text[index] < 0x7F
    return plain


def is_ipv4(str text not None) -> bool:
    """Whether it is an IPv4 address in strict dotted decimal, which is its own normal form."""
    cdef in_addr address
    cdef Py_ssize_t size = 0
    cdef const char* utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    return <size_t>size == strlen(utf8) and inet_pton(AF_INET, utf8, &address) == 1


def broken_rule_of_data(dict data not None) -> str | None:
    """The first rule of a session's `data` that a pair breaks; None when all are good."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t position = 0
    while PyDict_Next(data, &position, &key, &value):
        if type(<object>key) is not str or type(<object>value) is not str:
            return "keys and values are strings"
        if not 1 <= PyUnicode_GET_LENGTH(<object>key) <= DATA_KEY_CHARS_MAX:
            return "keys of 1 to 64 characters"
        if PyUnicode_GET_LENGTH(<object>value) > DATA_VALUE_CHARS_MAX:
            return "values of at most 1024 characters"
    return None
