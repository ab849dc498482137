"""YAML as a configuration file may be: plain values, each key once, and nothing that grows when it is read.

A megabyte of YAML can say what takes hours or all memory to construct: mappings merged into one another (`<<`), numbers of a
million digits. Both have bounds here that no configuration comes near.
"""

from typing import Any, Final

import yaml

NUMBER_CHARS_MAX: Final = 64
PAIRS_MAX: Final = 10_000  # of all mappings together, each counted again where it is merged into another
_NUMBERS: Final = frozenset(("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"))


class StrictLoader(yaml.SafeLoader):
    """What `yaml.load` is given as its loader. Its refusals are yaml.MarkedYAMLError."""

    _pairs = 0

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As SafeLoader, of numbers that are short."""
        if node.tag in _NUMBERS and len(node.value) > NUMBER_CHARS_MAX:
            raise _refusal(f"a number of more than {NUMBER_CHARS_MAX} characters", node)
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As SafeLoader, but a key given twice is refused, where that keeps the last."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            if isinstance(key_node.value, str) and key_node.value in seen:
                raise _refusal(f"the key {str(key_node.value)[:100]!r} is given twice", key_node)
            if isinstance(key_node.value, str):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """As SafeLoader, which calls it of each mapping, and again wherever one is merged into another."""
        super().flatten_mapping(node)
        self._pairs += len(node.value)
        if self._pairs > PAIRS_MAX:
            raise _refusal(f"more than {PAIRS_MAX} keys, those counted that are merged", node)


def _refusal(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
