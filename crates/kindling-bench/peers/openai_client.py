"""What the package `openai` (written against 3.57) sees of `kindling serve`: `cargo xtask check openai` runs it with an address, a model and a key."""

import sys

import openai

address, model, key = sys.argv[1:4]
client = openai.OpenAI(base_url=address, api_key=key, max_retries=0)
greedy = {"model": model, "max_tokens": 20, "temperature": 0}


def expect(holds, what):
    if not holds:
        sys.exit(f"not as expected: {what}")
    print(f"ok  {what}")


def refused(kind, what, call, code=None):
    try:
        call()
    except kind as error:
        expect(code is None or error.code == code, f"{what}: {kind.__name__}, {error.message[:80]}")
    else:
        sys.exit(f"not refused: {what}")


expect([one.id for one in client.models.list().data] == [model] and client.models.retrieve(model).id == model, "models")

whole = client.completions.create(prompt="# A", **greedy)
expect(whole.choices[0].text and whole.usage.completion_tokens <= 20, "a completion")
pieces = client.completions.create(prompt="# A", stream=True, **greedy)
expect("".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text, "the same as a stream")
both = client.completions.create(prompt=["# A", "# B"], n=2, seed=7, model=model, max_tokens=5)
expect(len(both.choices) == 4 and [one.index for one in both.choices] == [0, 1, 2, 3], "two prompts, two texts of each")
told = client.completions.create(prompt="# A text", logprobs=2, echo=True, **greedy).choices[0]
expect(told.text.startswith("# A text") and len(told.logprobs.tokens) == len(told.logprobs.token_logprobs), "log-probabilities with the prompt's")
stopped = client.completions.create(prompt="# A", stop=[whole.choices[0].text[3:6]], **greedy).choices[0]
expect(stopped.text == whole.choices[0].text[: whole.choices[0].text.find(whole.choices[0].text[3:6])], "a stop text is not shown")

messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is a run?"}]
chat = client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=3, **greedy)
expect(all(len(one.top_logprobs) == 3 for one in chat.choices[0].logprobs.content), "a chat with log-probabilities")
text, usage = "", None
for chunk in client.chat.completions.create(messages=messages, stream=True, stream_options={"include_usage": True}, **greedy):
    usage = chunk.usage or usage
    text += "".join(choice.delta.content or "" for choice in chunk.choices)
expect(text == chat.choices[0].message.content and usage == chat.usage, "the same as a stream, with its usage")

vectors = client.embeddings.create(model=model, input=["a run", "a text"])
plain = client.embeddings.create(model=model, input=["a run", "a text"], encoding_format="float")
expect([one.embedding for one in vectors.data] == [one.embedding for one in plain.data] and len(vectors.data) == 2, "vectors")

nobody = openai.OpenAI(base_url=address, api_key="another", max_retries=0)
refused(openai.AuthenticationError, "another key", nobody.models.list, "invalid_api_key")
refused(openai.NotFoundError, "another model", lambda: client.completions.create(model="none", prompt="a"), "model_not_found")
refused(openai.BadRequestError, "a long prompt", lambda: client.completions.create(prompt="a b c " * 3000, **greedy), "context_length_exceeded")
refused(openai.BadRequestError, "a long prompt as a stream", lambda: client.completions.create(prompt="a b c " * 3000, stream=True, **greedy))
refused(openai.BadRequestError, "no messages", lambda: client.chat.completions.create(messages=[], **greedy))
refused(openai.BadRequestError, "a temperature below 0", lambda: client.completions.create(model=model, prompt="a", temperature=-1))
refused(openai.BadRequestError, "more texts than can wait", lambda: client.completions.create(prompt=["a"] * 100, n=2, **greedy))
