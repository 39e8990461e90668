"""Reads the cases of llama.cpp's `tests/test-jinja.cpp` and `tests/test-chat-template.cpp` from their source."""
import re

TOKEN = re.compile(
    r'\s+|//[^\n]*|/\*.*?\*/|(?:u8)?R"\((?P<raw>.*?)\)"|(?:u8)?"(?P<text>(?:[^"\\]|\\.)*)"'
    r"|(?P<word>-?[\w.:]+)|(?P<mark>.)", re.S)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
WORDS = {"true": True, "false": False, "nullptr": None}


class Text(str):
    """A literal, told apart from words."""


def unescape(text):
    def value(match):
        escape = match[1]
        if escape[0] in "ux":
            return chr(int(escape[1:], 16))
        return ESCAPES.get(escape, escape)
    return re.sub(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", value, text, flags=re.S)


def tokens(source):
    """Literals, neighbours joined, and everything else word by word."""
    result = []
    for match in TOKEN.finditer(source):
        text = match["raw"] if match["raw"] is not None else match["text"]
        if text is not None:
            text = Text(text if match["raw"] is not None else unescape(text))
            if result and isinstance(result[-1], Text):
                result[-1] = Text(result[-1] + text)
            else:
                result.append(text)
        elif match["word"] or match["mark"]:
            result.append(match["word"] or match["mark"])
    return result


class Reader:
    """Values of C++ as nlohmann's json reads them."""

    def __init__(self, words):
        self.words, self.index = words, 0

    def take(self, expected=None):
        word = self.words[self.index]
        self.index += 1
        if expected is not None and (word != expected or isinstance(word, Text)):
            raise ValueError(f"{word!r} where {expected!r} is expected")
        return word

    def peek(self, mark):
        word = self.words[self.index]
        return not isinstance(word, Text) and word == mark

    def value(self):
        word = self.take()
        if isinstance(word, Text):
            return str(word)
        if word == "{":
            items = self.items("}")
            isObject = items and all(
                isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in items)
            return dict(items) if isObject else items
        if word in ("json::array", "json::object", "json", "std::string", "U8C"):
            close = {"(": ")", "{": "}"}[self.take()]
            items = self.items(close)
            if word == "json::object":
                return dict(items[0]) if items else {}
            if word == "json::array":
                return items[0] if len(items) == 1 and isinstance(items[0], list) else list(items[0].items()) \
                    if items and isinstance(items[0], dict) else []
            return items[0] if items else None
        if word in WORDS:
            return WORDS[word]
        return float(word) if "." in word else int(word)

    def items(self, close):
        result = []
        while not self.peek(close):
            result.append(self.value())
            if self.peek(","):
                self.take()
        self.take(close)
        return result


def interpreter_cases(source):
    """Name, template and variables of each case of test-jinja.cpp."""
    words, result = tokens(source), []
    for index in range(len(words) - 4):
        if words[index:index + 4] != ["test_template", "(", "t", ","] or not isinstance(words[index + 4], Text):
            continue
        reader = Reader(words)
        reader.index = index + 4
        name = reader.value()
        reader.take(",")
        template = reader.value()
        reader.take(",")
        result.append((name, template, reader.value() or {}))
    return result


def conversation_cases(source):
    """Name, template and variables of each case of test-chat-template.cpp."""
    words = tokens(source)
    start = next(i for i in range(len(words)) if words[i] == "test_cases" and words[i + 1] == "{")
    talk_start = next(i for i in range(len(words)) if words[i] == "conversation" and words[i + 1] == "{")
    reader = Reader(words)
    reader.index = talk_start + 2
    talk = [dict(zip(("role", "content"), pair)) for pair in map(list, (
        pair.items() if isinstance(pair, dict) else pair for pair in reader.items("}")))]
    result = []
    reader.index = start + 2
    while not reader.peek("}"):
        reader.take("{")
        fields = reader.items("}")
        if reader.peek(","):
            reader.take()
        fields += [""] * (6 - len(fields))
        result.append((fields[0], fields[1], {
            "messages": talk, "add_generation_prompt": True, "bos_token": fields[4], "eos_token": fields[5]}))
    return result
