"""YAML as people mean it in a settings file: 1:30 is text, not ninety, as in YAML 1.2.

Its library reads YAML 1.1, to which numbers with colons count in sixties.
"""

import re

import yaml

INT_TAG = "tag:yaml.org,2002:int"
_FLOAT_TAG = "tag:yaml.org,2002:float"

# Those of the library without the forms with colons; a number with zeros before it is found, to be refused.
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_OCTAL = re.compile(r"[-+]?0[0-9_]+\Z")


class SettingsLoader(yaml.SafeLoader):
    """The safe loader, without numbers to the base of sixty."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the base class
        first: [(tag, {INT_TAG: _INT, _FLOAT_TAG: _FLOAT}.get(tag, form)) for tag, form in forms]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def is_octal(node: yaml.Node) -> bool:
    """Return whether *node* is a number that starts with a zero: eight times less than it looks, or as it looks?"""
    return isinstance(node, yaml.ScalarNode) and node.tag == INT_TAG and _OCTAL.match(node.value) is not None
