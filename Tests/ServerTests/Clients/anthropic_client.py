"""Drives a server with the official client of Anthropic's interface.

usage: anthropic_client.py URL EXPECTED
    EXPECTED    what flashinfer-run answers to the question below, with the same seed
"""
import json
import sys

import anthropic

URL = sys.argv[1]
client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0, timeout=120)
model = client.models.list().data[0].id
chat = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "max_tokens": 24, "extra_body": {"seed": 5}}
tools = [{"name": "get_weather", "description": "Gets the weather of a city",
          "input_schema": {"type": "object", "properties": {"city": {"type": "string"}},
                           "required": ["city"]}}]


def check(is_right, what):
    """Ends the program where something is not as it should be."""
    if not is_right:
        sys.exit(f"error: {what}")


def refused(kind, word, **options):
    """A request that must be refused with an error of a kind that has a word in it."""
    try:
        client.messages.create(**{**chat, **options})
    except kind as error:
        check(error.body["type"] == "error" and word in error.body["error"]["message"],
              f"{error} does not name {word}")
    else:
        sys.exit(f"error: {options} was answered")


def whole_and_streamed():
    """Both ways give the same text, reason and usage."""
    whole = client.messages.create(**chat)
    with client.messages.stream(**chat) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    check(text == whole.content[0].text == streamed.content[0].text != "", f"{text!r}: {whole}")
    check(whole.stop_reason == streamed.stop_reason == "max_tokens", streamed)
    for message in (whole, streamed):
        check(message.usage.output_tokens == 24, message)
        check(message.usage.input_tokens + message.usage.cache_read_input_tokens == count(chat), message)
    stopped = client.messages.create(**chat, stop_sequences=[text[5:9]])
    check(stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == text[5:9], stopped)
    return text


def models_and_forms():
    """Models are listed; an output is of the form that is asked for."""
    one = client.models.retrieve(model)
    check(one.id == model and one.type == "model" and one.created_at.year >= 2020, one)
    try:
        client.models.retrieve("another")
    except anthropic.NotFoundError as error:
        check(error.body["type"] == "error", error)
    else:
        sys.exit("error: there is a model of any name")
    schema = {"type": "object", "properties": {"color": {"enum": ["blue", "red"]}}, "required": ["color"],
              "additionalProperties": False}
    made = client.messages.create(
        **{**chat, "max_tokens": 100}, output_config={"format": {"type": "json_schema", "schema": schema}})
    check(json.loads(made.content[0].text)["color"] in ("blue", "red"), made)


def count(question):
    """Tokens of a question's prompt."""
    kept = {key: value for key, value in question.items() if key in ("model", "messages", "tools", "system")}
    return client.messages.count_tokens(**kept).input_tokens


def calls():
    """A tool is called, whole and streamed, after a conversation with calls and blocks."""
    messages = []
    for number, city in enumerate(["Rome", "Oslo"]):
        use = f"call{number:05}"
        messages += [
            {"role": "user", "content": [{"type": "text", "text": f"Weather in {city}?"}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": use, "name": "get_weather", "input": {"city": city}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": use,
                 "content": [{"type": "text", "text": "sunny"}]}]},
            {"role": "assistant", "content": f"It is sunny in {city}."}]
    question = {"model": model, "tools": tools, "temperature": 0, "max_tokens": 60,
                "messages": messages + [{"role": "user", "content": "Weather in Paris?"}]}
    whole = client.messages.create(**question)
    with client.messages.stream(**question) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        check(message.stop_reason == "tool_use" and len(message.content) == 1, message)
        block = message.content[0]
        check(block.type == "tool_use" and block.name == "get_weather", message)
        check(block.input == {"city": "Paris"}, message)
        check(message.usage.input_tokens + message.usage.cache_read_input_tokens == count(question), message)
    check("content_block_delta" in kinds and "message_stop" in kinds, kinds)
    answered = client.messages.create(**{**question, "messages": question["messages"] + [
        {"role": "assistant", "content": whole.content},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": whole.content[0].id, "content": "rain"}]}]})
    check(answered.stop_reason == "end_turn" and answered.content[0].text, answered)
    client.messages.create(**question, tool_choice={"type": "none"})
    for forced in ({"type": "any"}, {"type": "tool", "name": tools[0]["name"]}):
        made = client.messages.create(**{**question, "max_tokens": 200}, tool_choice=forced)
        check(made.stop_reason == "tool_use" and made.content[0].name == tools[0]["name"], made)
    refused(anthropic.BadRequestError, "tool_choice", tools=tools, tool_choice={"type": "tool", "name": "none"})


def errors():
    """What cannot be answered is an exception of the client's own kinds."""
    refused(anthropic.BadRequestError, "temperature", temperature=-1)
    refused(anthropic.BadRequestError, "messages", messages=[])
    refused(anthropic.BadRequestError, "input_schem", tools=[{"name": "f", "input_schem": {}}])
    refused(anthropic.BadRequestError, "tokens", messages=[{"role": "user", "content": "word " * 2000}])
    refused(anthropic.BadRequestError, "image", messages=[{"role": "user", "content": [
        {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}]}])
    refused(anthropic.BadRequestError, "going on", messages=[
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    refused(anthropic.NotFoundError, "model", model="another")
    refused(anthropic.BadRequestError, "unheard_of", extra_body={"unheard_of": 1})


def blocks():
    """System and messages as texts or as blocks are the same."""
    texts = {**chat, "system": "Answer."}
    pieces = {**chat, "system": [{"type": "text", "text": "Answer.", "cache_control": {"type": "ephemeral"}}],
              "messages": [{"role": "user", "content": [
                  {"type": "text", "text": "Why is the sky blue?"}]}]}
    answers = [client.messages.create(**question).content[0].text for question in (texts, pieces)]
    check(answers[0] == answers[1], answers)
    client.messages.create(**chat, metadata={"user_id": "me"}, thinking={"type": "disabled"})


expected = whole_and_streamed()
check(expected == sys.argv[2], f"{expected!r} is not {sys.argv[2]!r}")
calls()
errors()
blocks()
models_and_forms()
print(f"anthropic {anthropic.__version__}: all of its calls were answered as they should be")
