"""Drives a server with the official client of OpenAI's interface.

usage: openai_client.py URL EXPECTED
    EXPECTED    what flashinfer-run answers to the question below, with the same seed
"""
import concurrent.futures
import json
import sys
import typing
import urllib.request

import openai
import pydantic

URL = sys.argv[1]
client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0, timeout=120)
model = client.models.list().data[0].id
chat = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "max_tokens": 24, "seed": 5}


def check(is_right, what):
    """Ends the program where something is not as it should be."""
    if not is_right:
        sys.exit(f"error: {what}")


def refused(kind, field, **options):
    """A request that must be refused with an error of a kind that names a field."""
    try:
        client.chat.completions.create(**{**chat, **options})
    except kind as error:
        check(error.param == field, f"{error} does not name {field}")
    else:
        sys.exit(f"error: {options} was answered")


def whole_and_streamed():
    """Both ways give the same text, reason and usage."""
    whole = client.chat.completions.create(**chat)
    text, reasons, usage = "", [], None
    for chunk in client.chat.completions.create(
            **chat, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    check(text == whole.choices[0].message.content != "", f"{text!r} is not {whole}")
    check(reasons == [whole.choices[0].finish_reason], reasons)
    check(usage.total_tokens == whole.usage.total_tokens, f"{usage} is not {whole.usage}")
    check(usage.prompt_tokens_details.cached_tokens is not None, usage)
    return text


def choices_and_probabilities():
    """Choices differ, and tokens have their probabilities."""
    answer = client.chat.completions.create(**chat, n=3, temperature=1, logprobs=True, top_logprobs=4)
    texts = {choice.message.content for choice in answer.choices}
    check(len(answer.choices) == 3 and len(texts) > 1, texts)
    for choice in answer.choices:
        for token in choice.logprobs.content:
            check(len(token.top_logprobs) == 4 and token.logprob <= 0, token)
    completion = client.completions.create(
        model=model, prompt=["Once upon a time", "The cat"], max_tokens=8, logprobs=2, seed=1)
    for choice in completion.choices:
        check(len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) > 0, choice)


def structured():
    """Answers are JSON of the schema that was asked for."""
    schema = {"type": "object", "properties": {
        "color": {"enum": ["blue", "red"]}, "reasons": {
            "type": "array", "items": {"type": "string", "maxLength": 30}, "maxItems": 3},
    }, "required": ["color", "reasons"], "additionalProperties": False}
    for strict in (True, False):
        form = {"type": "json_schema",
                "json_schema": {"name": "sky", "schema": schema, "strict": strict}}
        answer = client.chat.completions.create(
            **{**chat, "max_tokens": 300}, response_format=form)
        check(answer.choices[0].finish_reason == "stop", answer)
        value = json.loads(answer.choices[0].message.content)
        check(value["color"] in ("blue", "red") and len(value["reasons"]) <= 3, value)
    answer = client.chat.completions.create(
        **{**chat, "max_tokens": 400}, response_format={"type": "json_object"})
    if answer.choices[0].finish_reason == "stop":
        check(isinstance(json.loads(answer.choices[0].message.content), dict), answer)
    answer = client.chat.completions.create(
        **chat, presence_penalty=0.5, frequency_penalty=0.5, logit_bias={"5": -100},
        extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    check(answer.choices[0].message.content in ("yes", "no"), answer)


def errors():
    """What cannot be answered is an exception of the client's own kinds."""
    refused(openai.BadRequestError, "temperature", temperature=-1)
    refused(openai.BadRequestError, "messages", messages=[])
    refused(openai.BadRequestError, "logit_bias", logit_bias={"5": 1000})
    refused(openai.BadRequestError, "response_format", response_format={
        "type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}})
    refused(openai.BadRequestError, "tools", tools=[{"type": "function", "function": {}}])
    refused(openai.BadRequestError, "messages",
            messages=[{"role": "user", "content": "word " * 2000}])
    refused(openai.NotFoundError, "model", model="another")
    refused(openai.BadRequestError, "unheard_of", extra_body={"unheard_of": 1})


def calls():
    """A tool is called, whole and streamed, after a conversation with calls."""
    tools = [{"type": "function", "function": {
        "name": "get_weather", "description": "Gets the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                       "required": ["city"]}}}]
    messages = []
    for number, city in enumerate(["Rome", "Oslo"]):
        call = {"id": f"call{number:05}", "type": "function",
                "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
        messages += [
            {"role": "user", "content": f"Weather in {city}?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
            {"role": "assistant", "content": f"It is sunny in {city}."}]
    question = {"model": model, "tools": tools, "temperature": 0, "max_tokens": 60,
                "messages": messages + [{"role": "user", "content": "Weather in Paris?"}]}
    choice = client.chat.completions.create(**question).choices[0]
    check(choice.finish_reason == "tool_calls" and choice.message.content is None, choice)
    function = choice.message.tool_calls[0].function
    check(function.name == "get_weather" and json.loads(function.arguments) == {"city": "Paris"}, choice)
    with client.chat.completions.stream(**question) as stream:
        for event in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    check(streamed.finish_reason == "tool_calls", streamed)
    for field in ("name", "arguments"):
        got = getattr(streamed.message.tool_calls[0].function, field)
        check(got == getattr(function, field), f"{got!r} of {field} is not as in {function}")
    check(client.chat.completions.create(**question, tool_choice="none").choices[0].message.content,
          "no text without tools")
    for forced in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        made = client.chat.completions.create(**{**question, "temperature": 1, "max_tokens": 200}, seed=3, tool_choice=forced)
        call = made.choices[0].message.tool_calls[0].function
        check(call.name == "get_weather" and set(json.loads(call.arguments)) == {"city"}, made)
    refused(openai.BadRequestError, "tool_choice", tools=tools, tool_choice={"type": "function", "function": {"name": "none"}})


class Weather(pydantic.BaseModel):
    """What the weather is asked for."""
    city: typing.Literal["Paris", "Rome"]


class Sky(pydantic.BaseModel):
    """What an answer is parsed to."""
    color: typing.Literal["blue", "red"]
    is_clear: bool


def responses(expected):
    """Responses: whole, streamed, with calls and schemas, and going on from one another."""
    asked = {"model": model, "input": "Why is the sky blue?", "max_output_tokens": 24, "extra_body": {"seed": 5}}
    whole = client.responses.create(**asked)
    check(whole.output_text == expected, f"{whole.output_text!r} is not {expected!r}")
    check(whole.status == "incomplete" and whole.incomplete_details.reason == "max_output_tokens", whole)
    usage = whole.usage
    check(usage.total_tokens == usage.input_tokens + 24 and usage.input_tokens_details.cached_tokens >= 0, usage)
    events = list(client.responses.create(**asked, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    check("".join(deltas) == expected and len(deltas) > 1, deltas)
    check([event.sequence_number for event in events] == list(range(len(events))), events)
    check(events[0].type == "response.created" and events[-1].type == "response.incomplete", events)
    with client.responses.stream(**{**asked, "max_output_tokens": 200}, text_format=Sky) as stream:
        types = [event.type for event in stream]
        final = stream.get_final_response()
    check(types[-1] == "response.completed" and isinstance(final.output_parsed, Sky), final)
    kept = client.responses.retrieve(final.id)
    check(kept.output_text == final.output_text and kept.id == final.id, kept)
    after = client.responses.create(**{**asked, "input": "And at night?"}, previous_response_id=final.id)
    check(after.usage.input_tokens > final.usage.total_tokens and after.previous_response_id == final.id, after)
    counted = client.responses.input_tokens.count(model=model, input="And at night?", previous_response_id=final.id)
    check(counted.input_tokens == after.usage.input_tokens, counted)
    client.responses.delete(final.id)
    for ask in (lambda: client.responses.retrieve(final.id),
                lambda: client.responses.create(**asked, previous_response_id=final.id)):
        try:
            ask()
        except openai.NotFoundError as error:
            check(final.id in str(error), error)
        else:
            sys.exit("error: a response that was deleted is there")
    parsed = client.responses.parse(**{**asked, "max_output_tokens": 200}, text_format=Sky)
    check(isinstance(parsed.output_parsed, Sky), parsed)
    probable = client.responses.create(
        **asked, top_logprobs=3, include=["message.output_text.logprobs"])
    tokens = probable.output[0].content[0].logprobs
    check(len(tokens) == 24 and all(len(token.top_logprobs) == 3 for token in tokens), tokens)
    response_calls()


def response_calls():
    """A tool that must be called is, whole, streamed and parsed; its result goes on from it."""
    question = {"model": model, "input": "Weather in Paris?", "tool_choice": "required", "max_output_tokens": 200,
                "parallel_tool_calls": False,
                "extra_body": {"seed": 3}}
    tool = openai.pydantic_function_tool(Weather, name="get_weather")["function"]
    tools = [{"type": "function", **tool}]
    made = client.responses.parse(**question, tools=tools)
    call = made.output[0]
    check(call.type == "function_call" and call.name == "get_weather", made)
    check(isinstance(json.loads(call.arguments)["city"], str) and made.status == "completed", made)
    with client.responses.stream(**question, tools=tools) as stream:
        arguments = "".join(event.delta for event in stream
                            if event.type == "response.function_call_arguments.delta")
        streamed = stream.get_final_response().output[0]
    check(arguments == streamed.arguments == call.arguments, streamed)
    after = client.responses.create(
        model=model, previous_response_id=made.id, tools=tools, tool_choice="none", max_output_tokens=8,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}])
    check(after.usage.output_tokens > 0, after)
    items = [{"role": "user", "content": "Weather in Paris?"},
             *(item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in made.output),
             {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    after = client.responses.create(model=model, input=items, store=False, max_output_tokens=8)
    check(after.usage.output_tokens > 0, after)
    try:
        client.responses.create(model=model, input="a", background=True)
    except openai.BadRequestError as error:
        check(error.param == "background", error)
    else:
        sys.exit("error: a field that is not supported was taken")


def embeddings():
    """Vectors of length 1, as numbers and as bytes, the same for texts and their tokens."""
    texts = ["The cat sat on the mat.", "A kitten lay on the rug.", "Interest rates rose again."]
    made = client.embeddings.create(model=model, input=texts, extra_body={"pooling": "mean"})
    vectors = [item.embedding for item in made.data]
    check([item.index for item in made.data] == [0, 1, 2] and made.usage.prompt_tokens > 0, made.usage)
    numbers = client.embeddings.create(
        model=model, input=texts, encoding_format="float", extra_body={"pooling": "mean"})
    for vector, item in zip(vectors, numbers.data):
        check(abs(sum(x * x for x in vector) - 1) < 1e-5, vector)
        check(max(abs(a - b) for a, b in zip(vector, item.embedding)) < 1e-7, item)
    near, far = (sum(a * b for a, b in zip(vectors[0], vector)) for vector in vectors[1:])
    check(near > far, f"{near} is not above {far}")
    tokens = json.load(urllib.request.urlopen(urllib.request.Request(
        URL + "/tokenize", json.dumps({"content": texts[0], "add_special": True}).encode())))["tokens"]
    last = client.embeddings.create(model=model, input=texts[0]).data[0].embedding
    for given in (tokens, [tokens]):
        check(client.embeddings.create(model=model, input=given).data[0].embedding == last, given)
    try:
        client.embeddings.create(model=model, input="a", dimensions=8)
    except openai.BadRequestError as error:
        check(error.param == "dimensions", error)
    else:
        sys.exit("error: a vector was cut")


def many(expected):
    """However many ask, the answer is the same."""
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        others = [pool.submit(client.completions.create, model=model, prompt="a" * count,
                              max_tokens=20) for count in range(1, 25)]
        same = [pool.submit(client.chat.completions.create, **chat) for _ in range(12)]
        for answer in same:
            text = answer.result().choices[0].message.content
            check(text == expected, f"{text!r} is not {expected!r}")
        for answer in others:
            check(answer.result().usage.completion_tokens > 0, answer.result())


def leaving():
    """A stream that is closed in the middle leaves nothing behind."""
    stream = client.chat.completions.create(**{**chat, "max_tokens": 900}, stream=True)
    next(iter(stream))
    stream.close()
    while '"open":0' not in urllib.request.urlopen(URL + "/slots").read().decode():
        pass


text = whole_and_streamed()
check(text == sys.argv[2], f"{text!r} is not {sys.argv[2]!r}")
choices_and_probabilities()
structured()
errors()
calls()
responses(text)
embeddings()
many(text)
leaving()
print(f"openai {openai.__version__}: all of its calls were answered as they should be")
