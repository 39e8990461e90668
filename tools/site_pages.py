"""Renders the Markdown pages of the tree to HTML for tools/site, and fails on a link that leads nowhere.

usage: site_pages.py ROOT OUTPUT

Every page keeps its path: docs/format.md becomes docs/format.html, README.md of a folder index.html. A link may
lead to another page, to a heading of one, to a file of the tree (which is copied) or to the API reference, which is
already in OUTPUT. Code that is a page's path, such as `docs/format.md`, becomes a link to it.
"""

import html
import os
import posixpath
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import markdown

ROOT, OUTPUT = sys.argv[1:3]
MENU = [
    ("Start", "README.md"), ("Architecture", "docs/architecture.md"), ("Glossary", "docs/glossary.md"),
    ("In other programs", "docs/embedding.md"), ("Benchmarks", "benchmarks/README.md"),
    ("Contributing", "CONTRIBUTING.md"), ("Changes", "CHANGELOG.md"),
]
#: The entry to what docc rendered.
REFERENCE = """# API reference

- [WeightLoader](api/WeightLoader/documentation/weightloader/index.html): the tensors of any file, within a budget
- [Runtime](api/Runtime/documentation/runtime/index.html): models that generate text
- [flashinfer.h](Sources/CFlashInfer/include/flashinfer.h): both, for C
"""
STYLE = """
body { margin: 0 auto; max-width: 52rem; padding: 0 1rem 4rem; font: 1rem/1.55 system-ui, sans-serif; }
nav { padding: 1rem 0; border-bottom: 1px solid #8886; } nav a { margin-right: 1rem; }
pre { overflow-x: auto; padding: .75rem 1rem; background: #8881; border-radius: .4rem; } code { font-size: .9em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .3rem .6rem; border: 1px solid #8886; text-align: left; vertical-align: top; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #dde; } a { color: #8bf; } }
"""


def pages():
    """Path and text of the Markdown files under version control, but for DocC's, which docc renders."""
    listing = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        check=True, capture_output=True, text=True)
    texts = {}
    for path in sorted(listing.stdout.splitlines()):
        if ".docc/" not in path and os.path.isfile(os.path.join(ROOT, path)):
            with open(os.path.join(ROOT, path), encoding="utf-8") as file:
                texts[path] = file.read()
    return texts


def rendered_name(page):
    folder, name = posixpath.split(page)
    return posixpath.join(folder, "index.html" if name == "README.md" else name[:-3] + ".html")


def relative(target, page):
    return posixpath.relpath(target, posixpath.dirname(rendered_name(page)) or ".")


class Links(HTMLParser):
    """The links and the anchors of a rendered page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if values.get("id"):
            self.anchors.add(values["id"])
        if link := values.get("href" if tag == "a" else "src" if tag == "img" else ""):
            self.links.append(link)


class Site:
    def __init__(self, sources):
        self.sources = sources
        self.decisions = {os.path.basename(name)[:4]: name for name in sources if name.startswith("docs/decisions/")}
        self.files = set()
        self.faults = []

    def page_of(self, code):
        """The page that a path in code stands for: a page's own, a folder's, or a decision's by its number."""
        code = html.unescape(code).rstrip("/")
        if code.startswith("docs/decisions/"):
            return self.decisions.get(code[len("docs/decisions/"):][:4])
        return next((name for name in (code, code + "/README.md") if "/" in code and name in self.sources), None)

    def rewrite(self, link, page):
        """A link of the Markdown as one of the site."""
        if re.match(r"[a-z]+:", link) or link.startswith("#"):
            return link
        path, hash_mark, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        if target + "/README.md" in self.sources:
            target += "/README.md"
        if target in self.sources:
            return relative(rendered_name(target), page) + hash_mark + anchor
        if os.path.isfile(os.path.join(ROOT, target)):
            self.files.add(target)
        elif not os.path.exists(os.path.join(OUTPUT, target)):
            self.faults.append(f"{page}: {link}")
        return relative(target, page) + hash_mark + anchor

    def render(self, page):
        body = markdown.markdown(
            self.sources[page], extensions=["tables", "fenced_code", "toc", "sane_lists"], output_format="html")
        body = re.sub(r'(<(?:a href|img [^>]*?src)=")([^"]+)(")',
                      lambda match: match[1] + self.rewrite(match[2], page) + match[3], body)
        body = re.sub(r"(?<!\">)<code>([A-Za-z0-9_./+-]+)</code>(?!</a>)", lambda match: self.link_code(match, page), body)
        title = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.S)
        menu = " ".join(f'<a href="{relative(rendered_name(target), page)}">{name}</a>' for name, target in MENU)
        reference = relative("api.html", page)
        return (f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
                f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
                f'<title>{re.sub("<[^>]*>", "", title[1]) if title else page}</title>\n<style>{STYLE}</style>\n'
                f'<nav>{menu} <a href="{reference}">API reference</a></nav>\n{body}\n</html>\n')

    def link_code(self, match, page):
        target = self.page_of(match[1])
        if target is None or target == page:
            return match[0]
        return f'<a href="{relative(rendered_name(target), page)}">{match[0]}</a>'


def write(path, text):
    path = os.path.join(OUTPUT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def check(site, texts):
    """Faults of the rendered pages: links to no file, and anchors that no heading has."""
    parsed = {rendered_name(page): Links(text) for page, text in texts.items()}
    for name, links in parsed.items():
        for link in links.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            if not os.path.isfile(os.path.join(OUTPUT, target)):
                site.faults.append(f"{name}: {link}")
            elif anchor and target in parsed and anchor not in parsed[target].anchors:
                site.faults.append(f"{name}: {link} has no such heading")


def main():
    site = Site({**pages(), "api.md": REFERENCE})
    texts = {page: site.render(page) for page in site.sources}
    for page, text in texts.items():
        write(rendered_name(page), text)
    for file in sorted(site.files):
        os.makedirs(os.path.dirname(os.path.join(OUTPUT, file)), exist_ok=True)
        shutil.copyfile(os.path.join(ROOT, file), os.path.join(OUTPUT, file))
    check(site, texts)
    for fault in site.faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if site.faults else 0)


main()
