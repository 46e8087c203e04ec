"""A command line's words, put in the order the parser knows, and the parser's complaints, put in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence


def in_order(args: Sequence[str], flags: Collection[str]) -> list[str]:
    """Returns the words of a command with its options first, then "--" and everything else.

    A command's texts may so stand before, between and after its options. Options may be spelled with hyphens, as
    --prompts-file, where the parser knows --prompts_file.

    Args:
        args: the command and what follows it.
        flags: options that take no value.
    """
    if not args or args[0].startswith("-"):
        return list(args)
    options, texts = [], []
    words = iter(args[1:])
    for word in words:
        if word == "--":
            texts += words
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            name = name.replace("-", "_").replace("__", "--", 1)
            options.append(name + equals + value)
            if not equals and name not in flags:
                options += [value for value in [next(words, None)] if value is not None]
        elif word == "-h" or (word.startswith("-") and word != "-" and not re.search(r"\s", word)):
            options.append(word)
        else:
            texts.append(word)
    return [args[0], *options, *(["--", *texts] if texts else [])]


def one_line(error: Exception, options: Collection[str] = ()) -> str:
    """Returns an error's message in one line, the parser's in this program's words.

    Args:
        error: of the parser, the system or this package.
        options: all options there are, to find the one that was meant.
    """
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    wrong_type = re.match(r'Parser key "(?:\w+\.)?(\w+)": .*(?:Got|Given) value: ?(.*)$', text)
    if wrong_type:
        kinds = re.findall(r"list\[\w+\]|(?<=class ')\w+(?=')", text.split("Errors:")[0].split("Given value")[0])
        wanted = " or ".join(dict.fromkeys(_KINDS.get(kind, kind) for kind in kinds if kind != "NoneType"))
        return f"--{wrong_type[1]}: expected {wanted}, got {wrong_type[2]!r}"
    unknown = re.match(r"unrecognized arguments: (--\w+)", text)
    if unknown:
        near = difflib.get_close_matches(unknown[1], list(options), n=1)
        return f"unknown option {unknown[1]}" + (f"; did you mean {near[0]}?" if near else "; --help lists them")
    unexpected = re.match(r"unrecognized arguments: (?:-- )?(.*)$", text)
    if unexpected:
        return f"unexpected {unexpected[1]!r}; --help says what a command takes"
    text = re.sub(r"^(the following arguments are required: )(?:\w+\.)?(\w+)", r"\1--\2", text)
    return text.replace('expected "subcommand" to be one of', "expected a command, one of")


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "list[float]": "a list of numbers such as [1,2,3]",
    "str": "a text",
}
