"""Uses the page of a server that is asked for SmolLM2, in a headless Chromium, as a person would.

usage: page.py CHROMIUM URL KEY EXPECTED FOLDER [AXE]
The server wants the KEY. EXPECTED is flashinfer-run's answer to QUESTION with seed 5 and 24 tokens; pictures go to FOLDER; AXE is
axe-core's script.
"""

import json
import sys
import time

from devtools import Browser

QUESTION = "Why is the sky blue?"
HOSTILE = """<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>
[a](javascript:document.title='broken') [b](https://example.org/a_(b)?c=1) ![c](https://example.org/c.png) <b>d</b>
<https://example.org/e>, https://example.org/f.

**bold *both* bold** and `co*de*` and 2*3*4, snake_case_name, ~~gone~~ \\*kept\\*

1. one
   - inner
   - other

     ```html
     <i>fenced</i>
     ```
2. two

| a | b |
|---|:-:|
| 1 | `2` |

> quoted
> > twice

```swift
let x = 1
"""


def check(holds, what):
    if not holds:
        raise SystemExit(f"error: {what}")


def focused(page):
    return page.evaluate("document.activeElement.id")


def tab_to(page, element):
    """Goes to an element by the Tab key alone, from the beginning of the page."""
    page.evaluate("document.activeElement.blur()")
    for _ in range(80):
        page.press("Tab")
        if focused(page) == element:
            return
    raise SystemExit(f"error: no Tab leads to #{element}")


def stored(page):
    return page.evaluate(
        "Object.keys(localStorage).filter((key) => key.startsWith('flashinfer.conversation.'))"
        ".map((key) => JSON.parse(localStorage.getItem(key)))")


def last_answer(page):
    newest = max(stored(page), key=lambda conversation: conversation["changed"])
    return newest["messages"][-1]


def wait_for_answer(page):
    page.wait("document.getElementById('messages').ariaBusy === 'false' && !document.getElementById('send').hidden")


def slow_down(page):
    """Has each event of a stream reach the page a frame after the one before, however fast the server and this machine are."""
    page.evaluate("""{
      window.asked = 0;
      const ask = window.fetch;
      window.fetch = async (path, options) => {
        const response = await ask(path, options);
        if (options.method !== 'POST') return response;
        window.asked += 1;
        let text = '';
        const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        const events = new TransformStream({
          async transform(part, stream) {
            const parts = (text + part).split('\\n\\n');
            text = parts.pop();
            for (const event of parts) { stream.enqueue(event + '\\n\\n'); await frame(); }
          },
        });
        const body = response.body
          .pipeThrough(new TextDecoderStream()).pipeThrough(events).pipeThrough(new TextEncoderStream());
        return new Response(body, response);
      };
    }""")


def keyboard(page, expected):
    """A conversation with nothing but keys; the answer comes in parts and is flashinfer-run's."""
    check(focused(page) == "prompt", "the message box has the focus when the page is opened")
    tab_to(page, "open-settings")
    page.press("Enter")
    page.wait("document.getElementById('settings').open")
    for field, value in [("max-tokens", "24"), ("seed", "5")]:
        while focused(page) != field:
            page.press("Tab")
        page.type(value)
    page.press("Enter")
    page.wait("!document.getElementById('settings').open")
    check(focused(page) == "open-settings", "the focus goes back to where a dialog was opened")
    page.evaluate("""{
      window.lengths = new Set();
      new MutationObserver(() => {
        const prose = document.querySelector('.answer > .prose');
        if (prose) window.lengths.add(prose.textContent.length);
      }).observe(document.getElementById('messages'), { subtree: true, childList: true, characterData: true });
      window.spoken = [];
      new MutationObserver(() => window.spoken.push(document.getElementById('status').textContent))
        .observe(document.getElementById('status'), { childList: true, characterData: true, subtree: true });
    }""")
    while focused(page) != "prompt":
        page.press("Tab")
    page.type(QUESTION)
    page.press("Enter")
    page.wait("document.querySelector('.answer') !== null")
    wait_for_answer(page)
    answer = last_answer(page)
    check(answer["content"] == expected, f"{answer} is not {expected!r}")
    check(answer["usage"]["completion_tokens"] == 24, f"the usage is told: {answer}")
    check(len(page.evaluate("[...window.lengths]")) > 5, "an answer streams in")
    shown = page.evaluate("document.querySelector('.answer > .prose').innerText")
    check(shown.split() == expected.replace("*", "").split(), f"{shown!r} is shown of {expected!r}")
    spoken = page.evaluate("window.spoken")
    check("Answering" in spoken and any("complete" in text for text in spoken), f"turns are said: {spoken}")
    check(len(spoken) < 8, f"not each token is said: {spoken}")
    check(focused(page) == "prompt", "the focus is in the message box again")


def regenerate(page, expected):
    """The same seed gives the same answer; Escape stops one, and the server hears of it."""
    page.evaluate("[...document.querySelectorAll('.answer button')].find((b) => b.textContent === 'Regenerate').focus()")
    page.press("Enter")
    page.wait("window.asked === 2")
    wait_for_answer(page)
    check(last_answer(page)["content"] == expected, "the same seed gives the same answer again")
    page.evaluate("document.getElementById('new-conversation').click()")
    # What is saved holds for the next key, though it come before the next frame.
    defaults = page.evaluate("""{
      document.getElementById('open-settings').click();
      document.getElementById('max-tokens').value = '';
      document.getElementById('seed').value = '1';
      document.querySelector('#settings button[value=save]').click();
      document.getElementById('prompt').focus();
      Promise.resolve().then(() => localStorage.getItem('flashinfer.settings'));
    }""")
    check("limit" not in json.loads(defaults), f"settings hold when they are saved: {defaults}")
    page.type("Write a long story about a ship.")
    page.press("Enter")
    page.wait("document.querySelector('.answer > .prose')?.textContent.length > 20")
    page.press("Escape")
    wait_for_answer(page)
    check(last_answer(page)["finish"] == "stopped", f"Escape stops an answer: {last_answer(page)['finish']}")
    page.wait("import('./page/api.js').then(({ get }) => get('state')).then((state) => state.sequences.open === 0)")


def history(page, url, expected):
    page.open(url)
    page.wait("document.querySelectorAll('#conversation-list button').length === 2")
    page.evaluate(f"""[...document.querySelectorAll('#conversation-list button')]
      .find((button) => button.textContent === {json.dumps(QUESTION)}).click()""")
    check(page.evaluate("document.querySelectorAll('.answer').length") == 1, "a conversation is there after a reload")
    shown = page.evaluate("document.querySelector('.answer > .prose').innerText")
    check(shown.split() == expected.replace("*", "").split(), "with its answer")


def hostile(page, url):
    """What a model writes is text, whatever it looks like."""
    conversation = {
        "id": "hostile", "title": "", "created": 0, "changed": 9e15, "settings": {},
        "messages": [{"role": "user", "content": HOSTILE},
                     {"role": "assistant", "content": HOSTILE, "reasoning": HOSTILE, "finish": "stop"}]}
    page.evaluate(f"localStorage.setItem('flashinfer.conversation.hostile', {json.dumps(json.dumps(conversation))})")
    page.open(url)
    page.wait("document.querySelectorAll('.answer').length === 1")
    count = lambda selector: page.evaluate(f"document.querySelectorAll({json.dumps('.answer > .prose ' + selector)}).length")
    for selector in ["img", "script", "b", "i", "[onerror]", "a[href^='javascript']"]:
        check(count(selector) == 0, f"{selector} is made of an answer's text")
    links = page.evaluate("[...document.querySelectorAll('.answer > .prose a')].map((a) => [a.href, a.rel])")
    check([href for href, _ in links] == [
        "https://example.org/a_(b)?c=1", "https://example.org/c.png", "https://example.org/e", "https://example.org/f"],
        f"links: {links}")
    check(all("noopener" in rel for _, rel in links), f"links: {links}")
    for selector, expected in [
            ("strong", 1), ("strong em", 1), ("del", 1), ("ol > li", 2), ("li ul > li", 2), ("li .code", 1),
            ("td code", 1), ("blockquote blockquote", 1), ("> .code", 1)]:
        check(count(selector) == expected, f"{count(selector)} of {selector}, not {expected}")
    text = page.evaluate("document.querySelector('.answer > .prose').textContent")
    for part in ["2*3*4, snake_case_name", "*kept*", "co*de*", "<i>fenced</i>", "<script>"]:
        check(part in text, f"{part} is not in {text}")
    check(not page.evaluate("document.querySelector('.reasoning').open"), "reasoning is folded")
    check(page.evaluate("document.title") != "broken", "a script of an answer ran")
    page.evaluate("[...document.querySelectorAll('.question button')].find((b) => b.textContent === 'Edit').click()")
    check(page.evaluate("document.getElementById('prompt').value") == HOSTILE, "a question can be put in other words")
    check(page.evaluate("document.querySelectorAll('.answer').length") == 0, "without what followed it")
    page.open(url)
    page.wait("document.querySelectorAll('.answer').length === 1")
    # Long runs of marks must not take long.
    page.evaluate("""import('./page/markdown.js').then(({ MarkdownView }) => {
      const start = performance.now();
      for (const text of ['*', '_', '`', '[', '![', '> ', '- ', '**a ', '[a](', '|a|-', '<', '# ', '(', '~~', '1. '])
        new MarkdownView(document.createElement('div')).update(text.repeat(20000 / text.length));
      if (performance.now() - start > 5000) throw new Error(`it took ${performance.now() - start} ms`);
    })""")


def layout(page, folder):
    """Nothing is wider than the screen, in either colours."""
    backgrounds = set()
    for scheme in ["light", "dark"]:
        page.prefer(color_scheme=scheme)
        backgrounds.add(page.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor"))
        for width, height in [(1440, 900), (1024, 768), (360, 740)]:
            page.resize(width, height)
            page.shoot(f"{folder}/page-{width}-{scheme}.png")
            wide = page.evaluate("""[...document.querySelectorAll('body *')].filter((node) =>
              node.checkVisibility() && !node.closest('pre, .table, .visually-hidden, .skip, svg')
                && node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML.slice(0, 100))""")
            check(not wide, f"wider than {width} pixels: {wide}")
            check(page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} pixels scroll")
    check(len(backgrounds) == 2, "there are light and dark colours")
    page.evaluate("document.getElementById('theme').click()")
    check(page.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor") in backgrounds
          and page.evaluate("document.documentElement.dataset.theme") == "light", "the switch sets other colours")
    for drawer in ["engine", "conversations"]:
        tab_to_drawer(page, drawer)
        page.shoot(f"{folder}/page-360-{drawer}.png")
        page.press("Escape")
        check(not page.evaluate(f"document.getElementById('{drawer}').matches(':popover-open')"), f"Escape closes {drawer}")
    page.prefer(color_scheme="light")
    page.resize(1440, 900)
    page.wait("document.getElementById('conversations').popover === null")


def tab_to_drawer(page, drawer):
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('popovertarget')") == drawer:
            break
    page.press("Enter")
    page.wait(f"document.getElementById('{drawer}').matches(':popover-open')")


def accessibility(page, axe):
    """Landmarks and names, as a screen reader gets them; and what axe-core finds, where it could be had."""
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    roles = [node["role"]["value"] for node in nodes]
    for role in ["banner", "navigation", "main", "complementary", "status"]:
        check(role in roles, f"there is no {role}: {sorted(set(roles))}")
    named = {"button", "textbox", "link", "spinbutton", "navigation", "complementary", "image", "progressbar"}
    for node in nodes:
        if node["role"]["value"] in named:
            check(node.get("name", {}).get("value"), f"a {node['role']['value']} has no name: {node.get('properties')}")
    if axe is None:
        return
    with open(axe, encoding="utf-8") as file:
        page.evaluate(file.read() + "; 0")
    page.evaluate("document.documentElement.removeAttribute('data-theme')")
    for scheme in ["light", "dark"]:
        page.prefer(color_scheme=scheme)
        check_with_axe(page, scheme)
        page.evaluate("document.getElementById('open-settings').click()")
        check_with_axe(page, f"{scheme}, settings")
        page.press("Escape")
        page.resize(360, 740)
        for drawer in ["engine", "conversations"]:
            tab_to_drawer(page, drawer)
            check_with_axe(page, f"{scheme}, {drawer}")
            page.press("Escape")
        page.resize(1440, 900)
        page.wait("document.getElementById('conversations').popover === null")
    page.prefer(color_scheme="light")


def check_with_axe(page, state):
    found = page.evaluate("""axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map(
      ({ id, nodes }) => [id, nodes.slice(0, 3).map((node) => [node.html.slice(0, 160), node.failureSummary])]))""")
    check(not found, f"axe-core, {state}: {json.dumps(found, indent=1)}")


def enter_key(page, key):
    """The page asks for a key, again where it is wrong, and forgets it with the tab."""
    for given in ["wrong", key]:
        page.wait("document.getElementById('key').open && document.getElementById('key-value').value === ''")
        told = page.evaluate("document.getElementById('key-wrong').checkVisibility()")
        check(told == (given == key), "the page does not say that a key is wrong, or says it of none")
        page.type(given)
        page.press("Enter")
    page.wait("document.getElementById('model').textContent !== ''")
    kept = page.evaluate("Object.values(localStorage).join()")
    check(key not in kept, "a key is kept for good")
    # The browser itself writes of refusals.
    check(len(page.complaints) == 2 and all("401" in text for text in page.complaints), f"{page.complaints}")
    page.complaints.clear()


def main(chromium, url, secret, expected, folder, axe=None):
    with Browser(chromium) as browser:
        page = browser.page()
        page.resize(1440, 900)
        page.open(url)
        enter_key(page, secret)
        page.shoot(f"{folder}/page-empty.png")
        page.open(url)
        page.wait("document.getElementById('model').textContent !== ''")
        slow_down(page)
        keyboard(page, expected)
        regenerate(page, expected)
        history(page, url, expected)
        page.shoot(f"{folder}/page-answer.png")
        hostile(page, url)
        layout(page, folder)
        accessibility(page, axe)
        time.sleep(0.3)
        check(not page.complaints, f"the console: {page.complaints}")
    print(f"the page works{'' if axe else ', axe-core apart'}; pictures are in {folder}")


main(*sys.argv[1:])
