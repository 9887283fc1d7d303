"""Locate mistakes in compose files, as file:line:col, and explain the errors of Compose.

The error messages of Compose change between releases, and mostly name no place. This module finds the place in the
original files: by the keys in the message, else by the words that it quotes.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mailstack.definition.schema import InvalidDefinition, Keys
from mailstack.errors import LabFileError


def explain_invalid(error: InvalidDefinition, files: Sequence[Path]) -> LabFileError:
    """Return a Misfit as an error with its place."""
    path = ".".join(str(key) for key in error.keys)
    return LabFileError(f"{locate(error.keys, files)}: {path + ': ' if path else ''}{error.message}")


def explain_compose(output: str, files: Sequence[Path]) -> LabFileError:
    """Return the error of Compose in plain words, with the place that it refers to."""
    if (broken := broken_yaml(files)) is not None:
        return broken
    message = _simplified(output)
    return LabFileError(f"{_referenced_place(message, files)}: {message}")


def locate(keys: Keys, files: Sequence[Path]) -> str:
    """Return `file:line:col` of the deepest key that exists, in the last of the `files` with the most of `keys`."""
    return _deepest(keys, files)[1]


# ── reading the original files ─────────────────────────────────────────────────────────────────────────────────────


def broken_yaml(files: Sequence[Path]) -> LabFileError | None:
    """Return the first mistake that makes a file invalid YAML or no compose file; None when there is none."""
    for file in files:
        try:
            for node in _documents(file):
                if problem := _misuse(node):
                    return LabFileError(f"{_place(file, problem[0])}: {problem[1]}")
        except LabFileError as error:
            return error
        except RecursionError:
            return LabFileError(f"{file}:1:1: not valid YAML: it is nested too deeply")
    return None


def _documents(file: Path) -> list[Any]:
    """Return the documents in a file, as trees of nodes with places. Raises LabFileError for invalid YAML."""
    import yaml

    text = _text(file)
    if (unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text)) is not None:
        raise LabFileError(
            f"{file}:{_line_and_column(text[: unprintable.start()])}: "
            f"not valid YAML: the character U+{ord(unprintable.group()):04X} is not allowed in it"
        )
    try:
        return list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        problem, mark, opening = str(error.problem or error.context), error.problem_mark, error.context_mark
        problem = next((plain for start, plain in _SIMPLER.items() if problem.startswith(start)), problem)
        if opening and mark and mark.index >= len(text.rstrip()):
            # The parser noticed this at the end of the file. The mistake is where the construct begins.
            raise LabFileError(f"{_place(file, opening)}: not valid YAML: what starts here is never closed") from None
        mark = mark or opening
        since = (
            f" ({error.context} from line {opening.line + 1})" if opening and mark and opening.line < mark.line else ""
        )
        raise LabFileError(f"{_place(file, mark) if mark else file}: not valid YAML: {problem}{since}") from None


_SIMPLER = {
    "found character '\\t'": "tabs are not allowed here: indent with spaces",
    "expected <block end>": "the indentation does not match the lines above",
    "mapping values are not allowed here": "a `:` is not allowed here: is the line above complete?",
}


def _text(file: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark (YAML 1.2, section 5.2)."""
    data = file.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-16" if wide else "utf-8", errors="replace")
        raise LabFileError(f"{file}:{_line_and_column(before)}: not valid YAML: not text in UTF-8") from None


def _line_and_column(before: str) -> str:
    lines = re.split(r"\r\n|[\r\n]", before)
    return f"{len(lines)}:{len(lines[-1].lstrip(chr(0xFEFF))) + 1}"


def _place(file: Path, mark: Any) -> str:
    return f"{file}:{mark.line + 1}:{mark.column + 1}"


def _misuse(root: Any) -> tuple[Any, str] | None:
    """Return the mark and a description of the first construct that YAML allows and compose files do not."""
    import yaml

    if not isinstance(root, yaml.MappingNode):
        return root.start_mark, "should be a mapping, as in compose files"
    if (cycle := _cycle(root, ())) is not None:
        return cycle, "an alias here contains itself"
    for node in _nodes(root):
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: dict[str, int] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                return name.start_mark, "a key must be a scalar, not a list or a mapping"
            if name.value in seen:
                return name.start_mark, f"{name.value} is here twice; it is in line {seen[name.value]} already"
            seen[name.value] = name.start_mark.line + 1
            if name.value == "<<" and isinstance(value, yaml.ScalarNode):
                return value.start_mark, "the value of << must be a mapping"
    return None


def _cycle(node: Any, above: tuple[int, ...]) -> Any:
    """Return the mark of a node that contains itself through an alias; None when there is none."""
    if id(node) in above:
        return node.start_mark
    below = node.value if isinstance(node.value, list) else []
    for part in below:
        for child in part if isinstance(part, tuple) else (part,):
            if isinstance(child.value, list) and (mark := _cycle(child, (*above, id(node)))) is not None:
                return mark
    return None


def _nodes(root: Any) -> Iterator[Any]:
    """Yield `root` and all nodes below it, each once, even when aliases make a cycle."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node.value, list):
            below = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
            pending.extend(reversed(below))


# ── by keys ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _deepest(keys: Keys, files: Sequence[Path]) -> tuple[int, str]:
    """Return the number of `keys` that the files contain, and the place of the last of those."""
    # Compose appends the lists of later files to those of earlier ones, so indexes continue across files.
    best, place = 0, f"{files[-1]}:1:1"
    before: dict[int, int] = {}  # depth → number of list items there in the earlier files
    for file in files:
        for root in _documents(file):
            depth, node, mark = 0, root, None
            while depth < len(keys):
                count = before.get(depth, 0)
                before[depth] = count + _length(node)
                # A key may contain dots (`dora@example.com`): try the longest joined key first.
                for end in range(len(keys), depth, -1):
                    key = keys[depth] if end == depth + 1 else ".".join(map(str, keys[depth:end]))
                    if step := _child(node, key, count):
                        break
                else:
                    break
                depth, (mark, node) = end, step
            if mark is not None and depth >= best:
                best, place = depth, _place(file, mark)
    return best, place


def _length(node: Any) -> int:
    import yaml

    return len(node.value) if isinstance(node, yaml.SequenceNode) else 0


def _child(node: Any, key: str | int, before: int) -> tuple[Any, Any] | None:
    import yaml

    if isinstance(node, yaml.SequenceNode) and str(key).isdecimal():
        index = int(key) if int(key) < len(node.value) and not before else int(key) - before
        return (node.value[index].start_mark, node.value[index]) if 0 <= index < len(node.value) else None
    if not isinstance(node, yaml.MappingNode):
        return None
    # In reverse: of two keys that differ only in case, report the second.
    for name, value in reversed(node.value):
        if str(name.value).lower() == str(key).lower():
            return name.start_mark, value
    for name, value in node.value:
        if name.value == "<<":
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if step := _child(merged, key, 0):
                    return step
    return None


# ── by the message ─────────────────────────────────────────────────────────────────────────────────────────────────

# Prefixes and suffixes of Compose's messages, and terms of Go in them.
_WRAPPINGS = (
    (r'time="[^"]*" level=\w+ msg="(?:[^"\\]|\\.)*"', ""),
    (r"^\s*validating [^:]*: *", ""),
    (r"(?:failed to parse [^:]*|yaml: construct errors|line \d+|go-yaml load error in constructor at [^:]*): ", ""),
    (r"decoding failed due to the following error\(s\): *", ""),
    (r"error while interpolating ", ""),
    (r"failed to cast to expected type: ", ""),
    (r'strconv\.\w+: parsing ("[^"]*"): .*', r"\1 is not a number"),
    (r": invalid compose project", ""),
    (r"cannot override ([\w.@-]+)$", r"\1 should be of the kind that the lab's own file has there"),
    (r"unexpected type \[\]interface \{\}", "a list is not allowed here"),
    (r"unexpected type map\[string\]interface \{\}", "a mapping is not allowed here"),
    (r" false schema", " is not allowed here"),
    (r"must be a (array|object)", r"must be an \1"),
    (r"must be a null", "must be text or a list"),
    (r"'([\w-]+)\[([^\]]*)\]", r"'\1.\2"),
)


def _simplified(output: str) -> str:
    text = " ".join(line.strip() for line in output.splitlines() if line.strip())
    for pattern, plain in _WRAPPINGS:
        text = re.sub(pattern, plain, text)
    return " ".join(text.split()) or "Compose does not accept it"


def _referenced_place(message: str, files: Sequence[Path]) -> str:
    """Return the place that a message of Compose refers to."""
    best, place = 0, f"{files[-1]}:1:1"
    service = ""
    if named := re.search(r'service "?([\w.-]+)"?', message) or re.search(r"cycle detected: ([\w.-]+)", message):
        service = named[1]
        best, place = _deepest(("services", service), files)
    if "cycle detected" in message and service:
        return locate(("services", service, "depends_on"), files)
    for keys in _keys_named(message):
        if (found := _deepest(keys, files))[0] > best:
            best, place = found
    if best < 3 and (word := _quoted_place(message, files, service)):
        return word
    return place


def _keys_named(message: str) -> Iterator[Keys]:
    """Yield paths like `services.postfix.ports`, and keys after it: `… additional properties 'x', 'y' not allowed`."""
    for match in re.finditer(r"[A-Za-z@][\w@-]*(?:\.[\w@\[\]-]+)*", message):
        keys: Keys = tuple(re.sub(r"\[(\d*)\]", r"\1", part) for part in match[0].rstrip(".").split("."))
        if "" in keys:  # `ports.[].target`: Compose omits the index, so try each
            hole = keys.index("")
            for number in range(20):
                yield (*keys[:hole], number, *keys[hole + 1 :])
        keys = tuple(key for key in keys if key)
        yield keys
        if extra := re.match(r" *additional properties '([^']+)'", message[match.end() :]):
            yield (*keys, extra[1])
        if extra := re.match(r": (\S+)$", message[match.end() :]):  # `non-string key in volumes: 5`
            yield (*keys, extra[1])
    if extra := re.match(r" *additional properties '([^']+)'", message):
        yield (extra[1],)


def _quoted_place(message: str, files: Sequence[Path], service: str) -> str:
    """Return the place in an overlay of a word that the message quotes or ends with, in its service if it names one."""
    import yaml

    quoted = [word for pair in re.findall(r'"([^"]+)"|`([^`]+)`|\'([^\']+)\'', message) for word in pair if word]
    words = [word.strip(".,:;") for word in (*quoted, *reversed(message.split()))]
    # File names, addresses and the like first. Plain words may be part of the message itself.
    words = sorted((word for word in words if word not in ("", service)), key=lambda word: word.isalpha())
    for file in reversed(files[1:] or files):
        for root in _documents(file):
            tree = root
            for key in ("services", service) if service else ():
                step = _child(tree, key, 0)
                tree = step[1] if step else tree
            scalars = [node for node in _nodes(tree) if isinstance(node, yaml.ScalarNode) and len(node.value) > 1]
            for word in words:
                for node in scalars:
                    # Compose makes paths absolute: the original path is the end of one.
                    if node.value == word or word.endswith("/" + node.value.removeprefix("./")):
                        return _place(file, node.start_mark)
            for word in words:
                for node in scalars:
                    if len(word) > 2 and word in re.split(r"[:/]", node.value):
                        return _place(file, node.start_mark)
    return ""
