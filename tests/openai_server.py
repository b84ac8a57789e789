"""A small server with OpenAI's `/v1/completions` around refgen, in which faults can be planted: what the claim "serving" is tested on.

    with Server(folder, fault="echo_ignored") as url: ...

It is written apart from refgen/conformance, so that the two do not share mistakes. Without a fault it must pass everything.
Threads, 127.0.0.1, a free port.
"""

import json
import threading
import time
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np

import refgen
from refgen.generation.streaming import TextDecoder


class Fault(NamedTuple):
    """What is wrong, the rules of which one must be named first, and the check that is there for it."""

    sentence: str
    rules: tuple[str, ...]
    check: str


FAULTS = {
    "second_best": Fault("the second best token is taken", ("GREEDY-01",), "greedy"),
    "zero_samples": Fault("temperature 0 is taken as 1", ("TEMP-02",), "seed.greedy"),
    "temperature_ignored": Fault("every answer is greedy", ("TEMP-01",), "seed.other"),
    "seed_ignored": Fault("every request draws by a seed of its own", ("SAMP-05",), "seed.same"),
    "seed_fixed": Fault("all seeds are one", ("SAMP-05",), "seed.other"),
    "top_p_ignored": Fault("top_p has no effect", ("TOPP-01",), "top_p"),
    "one_more": Fault("one token more than max_tokens", ("LEN-01",), "max_tokens"),
    "default_length": Fault("max_tokens has no effect", ("LEN-01",), "max_tokens"),
    "end_ignored": Fault("text goes on behind the end token", ("STOP-02",), "finish.eos"),
    "end_shown": Fault("the end token's text is in the text", ("SERVE-09",), "eos.hidden"),
    "finish_always_stop": Fault("finish_reason is always stop", ("SERVE-02",), "finish.length"),
    "finish_always_length": Fault("finish_reason is always length", ("SERVE-02",), "finish.eos"),
    "stream_without_finish": Fault("a stream has no finish_reason", ("SERVE-02",), "stream.finish"),
    "usage_off_by_one": Fault("usage counts one token less", ("SERVE-01",), "usage"),
    "usage_of_one_choice": Fault("usage counts the first choice only", ("SERVE-01",), "usage.n"),
    "usage_of_stream": Fault("usage of a stream counts nothing", ("SERVE-01",), "usage.stream"),
    "stop_in_newest": Fault("a stop string is looked for in the newest token only", ("SERVE-03",), "stop.across"),
    "stop_ignored": Fault("stop strings have no effect", ("SERVE-03",), "stop.across"),
    "stop_shown": Fault("the stop string stays in the text", ("SERVE-03",), "stop.across"),
    "text_after_stop": Fault("the token with the stop string is shown whole", ("SERVE-03",), "stop.inside"),
    "letters_skipped": Fault("stop strings of one letter are skipped", ("SERVE-03",), "stop.letter"),
    "first_stop_only": Fault("only the first stop string of the list is used", ("SERVE-03",), "stop.several"),
    "absent_cuts": Fault("a stop string that does not come cuts the last letter", ("SERVE-03",), "stop.absent"),
    "stop_by_token_text": Fault("stop strings are matched on the joined texts of tokens", ("SERVE-03",), "stop.character"),
    "decoded_by_token": Fault("a stream decodes every token by itself", ("STREAM-03",), "stream.characters"),
    "tail_lost": Fault("a stream does not flush its decoder", ("STREAM-03",), "stream.tail"),
    "space_stripped": Fault("a stream strips the space it begins with", ("SERVE-04",), "stream.same"),
    "piece_twice": Fault("a stream sends its third piece twice", ("SERVE-04",), "stream.same"),
    "stop_flashes": Fault("a stream shows the beginning of a stop string", ("SERVE-04",), "stream.stop"),
    "held_for_ever": Fault("a stream never releases what it held back", ("SERVE-04",), "stream.held"),
    "logprobs_shifted": Fault("logprobs are those of the token before", ("SERVE-05",), "logprobs.values"),
    "logprobs_off": Fault("logprobs are a thousandth off", ("OUT-08",), "logprobs.values"),
    "logprobs_tempered": Fault("logprobs are after temperature, though declared raw", ("OUT-08",), "logprobs.temperature"),
    "logprobs_positive": Fault("logprobs have the wrong sign", ("SERVE-05",), "logprobs.lists"),
    "logprobs_of_another": Fault("logprobs are those of the second best token", ("SERVE-05",), "logprobs.lists"),
    "logprobs_too_long": Fault("logprobs go on behind a stop string, tokens do not", ("SERVE-05",), "logprobs.stop"),
    "logprobs_ignored": Fault("logprobs do not come", ("SERVE-05",), "logprobs.lists"),
    "many_logprobs_crash": Fault("500 on more logprobs than tokens", ("SERVE-10",), "logprobs.too_many"),
    "echo_ignored": Fault("echo has no effect", ("SERVE-06",), "echo.text"),
    "echo_shifted": Fault("the prompt's logprobs are scored one position late", ("SERVE-06",), "echo.logprobs"),
    "echo_first": Fault("the first token of the prompt has logprob 0", ("SERVE-06",), "echo.logprobs"),
    "n_ignored": Fault("n has no effect", ("SERVE-07",), "n.greedy"),
    "n_all_zero": Fault("all choices have index 0", ("SERVE-07",), "n.greedy"),
    "n_one_seed": Fault("all choices are drawn by one seed", ("SERVE-07",), "n.sampled"),
    "bias_ignored": Fault("logit_bias has no effect", ("BIAS-01",), "bias.up"),
    "bias_doubled": Fault("logit_bias is added twice", ("BIAS-01",), "bias.some"),
    "bias_up_only": Fault("negative biases have no effect", ("BIAS-01",), "bias.down"),
    "cache_too_long": Fault("the prefix cache keeps a position too many", ("SERVE-08",), "state.prefix"),
    "cache_by_length": Fault("a cached prompt is found by its length", ("SERVE-08",), "state.length"),
    "cache_of_all": Fault("a prompt wholly in the cache gives nothing", ("SERVE-08",), "state.twice"),
    "swapped": Fault("answers are swapped under load", ("SERVE-08",), "state.together"),
    "prompt_cut": Fault("a prompt too long is cut in silence", ("SERVE-10",), "context.over"),
    "prompt_crash": Fault("500 on a prompt too long", ("SERVE-10",), "context.over"),
    "wrong_crash": Fault("500 on a field of the wrong kind", ("SERVE-10",), "request.wrong"),
}  # fmt: skip
# Options of SPEC.md that a server can take: what is planted then, and before, and the check that shows it.
OPTIONS = {
    "usage_of_choices=first": ("usage_of_one_choice", None, "usage.n"),
    "end_token_in_usage=left_out": ("end_not_counted", None, "usage"),
    "stop_string_in_text=kept": ("stop_shown", None, "stop.across"),
    "held_at_the_end=lost": ("held_for_ever", None, "stream.held"),
    "unfinished_character=dropped": ("half_dropped", None, "stream.tail"),
    "echo=ignored": ("echo_ignored", None, "echo.text"),
    "special_tokens_in_text=shown": ("end_shown", None, "eos.hidden"),
    "unknown_field=refused": ("unknown_refused", None, "request.unknown"),
    "logprobs=raw": (None, "logprobs_tempered", "logprobs.temperature"),
}
# What is no answer at all: the exception of protocol.py that must come.
BROKEN = {"hangs": "TimedOutError", "drips": "TimedOutError", "garbage": "GarbledError", "dies": "CrashedError",
          "no_choices": "GarbledError", "no_text": "GarbledError", "garbage_stream": "GarbledError"}  # fmt: skip
LIMIT, MOST, MOST_CHOICES = 16, 1024, 4  # default max_tokens, most alternatives, most choices


class BadRequestError(Exception):
    """Answered 400."""


class Server:
    """`owner` and `refuses` make it another kind of server: what it calls itself, fields it answers with 400."""

    def __init__(self, folder, fault=None, owner="refgen", refuses=(), texts_only=False, shape="legacy"):
        options = {planted for planted, _, _ in OPTIONS.values()}
        assert fault is None or fault in FAULTS.keys() | BROKEN.keys() | options
        self.folder, self.fault, self.owner = Path(folder), fault, owner
        self.refuses, self.texts_only, self.shape = set(refuses), texts_only, shape
        self.model, self.tokenizer = loaded(self.folder)
        self.before, self.running, self.requests = [], [], 0
        self.lock = threading.Lock()

    def __enter__(self):
        handler = type("Handler", (Handler,), {"server_of": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=[0.01], daemon=True).start()
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def has(self, fault):
        """Whether it is planted."""
        return self.fault == fault

    # --- Requests ---

    def settings(self, body):
        """The body with defaults, or BadRequestError."""
        refuses = {"refgen_unknown_field"} if self.has("unknown_refused") else self.refuses
        if foreign := refuses & body.keys():
            raise BadRequestError(f"unknown field {foreign.pop()}")
        for name, kind in (("max_tokens", int), ("temperature", int | float), ("top_p", int | float), ("n", int)):
            if not isinstance(body.get(name, 1), kind):
                if self.has("wrong_crash"):
                    raise RuntimeError(f"{name} is no number")
                raise BadRequestError(f"{name} must be a number")
        if body.get("n", 1) > MOST_CHOICES:
            raise BadRequestError(f"n must be at most {MOST_CHOICES}")
        stops = body.get("stop") or []
        return {
            "max_tokens": LIMIT, "temperature": 1.0, "top_p": 1.0, "n": 1, "seed": None, "echo": False,
            "logprobs": None, "logit_bias": {}, "stream": False,
        } | body | {"stop": [stops] if isinstance(stops, str) else stops}  # fmt: skip

    def prompt(self, given):
        """Ids of the prompt, which fits the context."""
        if isinstance(given, str):
            ids = self.tokenizer.encode(given)
        elif isinstance(given, list) and given and all(type(each) is int for each in given) and not self.texts_only:
            ids = given
        else:
            raise BadRequestError("prompt must be a text" + " or ids" * (not self.texts_only))
        n = self.model.config.n_positions
        if len(ids) > n:
            if self.has("prompt_crash"):
                raise RuntimeError("too long")
            if not self.has("prompt_cut"):
                raise BadRequestError(f"{len(ids)} tokens, {n} are allowed")
        return ids

    def complete(self, body):
        """Prompt, settings and choices; each choice is a generator of pieces."""
        asked = self.settings(body)
        prompt = self.prompt(asked["prompt"])
        many = asked["logprobs"]
        if many is not None and many > MOST and self.has("many_logprobs_crash"):
            raise RuntimeError("index out of range")
        n = 1 if self.has("n_ignored") else asked["n"]
        fed = self.fed(prompt)
        return prompt, asked, [self.choice(prompt, fed, asked, number) for number in range(n)]

    def fed(self, prompt):
        """The ids that the model is shown: the prompt's, unless a cache or a neighbour is in the way."""
        fed = list(prompt)[-self.model.config.n_positions :]
        before, self.before = self.before, [*self.before[-9:], fed]
        if self.has("cache_too_long") and before:
            last = before[-1]
            common = next(
                (i for i, pair in enumerate(zip(fed, last, strict=False)) if pair[0] != pair[1]),
                min(len(fed), len(last)),
            )
            if 0 < common < min(len(fed) - 1, len(last)):
                fed[common] = last[common]
        if self.has("cache_by_length"):
            fed = next((each for each in before if len(each) == len(fed)), fed)
        if self.has("cache_of_all") and before and before[-1] == fed:
            return []
        return fed

    # --- One choice ---

    def steps(self, fed, asked, number):
        """Tokens with the model's logits, before biases."""
        if not fed:
            return
        limit = asked["max_tokens"] + self.has("one_more")
        limit = LIMIT if self.has("default_length") else limit
        warm = asked["temperature"] > 0 and not self.has("temperature_ignored")
        temperature = asked["temperature"] if warm else 0
        if self.has("zero_samples") and not warm:
            warm, temperature = True, 1.0
        seed = asked["seed"]
        if seed is None or self.has("seed_ignored"):
            self.requests += 1
            seed = 10**6 + self.requests
        seed = 1 if self.has("seed_fixed") else seed + 1000 * number * (not self.has("n_one_seed"))
        factor = 2 if self.has("bias_doubled") else 1
        biases = tuple(
            (int(token), factor * min(max(bias, -100), 100))
            for token, bias in asked["logit_bias"].items()
            if not self.has("bias_ignored") and not (self.has("bias_up_only") and bias < 0)
        )
        top_p = 1.0 if self.has("top_p_ignored") else asked["top_p"]
        fixed = (seed, float(temperature), float(top_p)) if warm else None
        extra = tuple(
            (name, asked[name])
            for name in ("top_k", "min_p", "repetition_penalty")
            if self.owner == "vllm" and asked.get(name) not in (None, -1)
        )
        ending = not self.has("end_ignored") and not (self.owner == "vllm" and asked.get("ignore_eos"))
        yield from generated(self.folder, tuple(fed), limit, fixed, biases, ending, self.has("second_best"), extra)

    def choice(self, prompt, fed, asked, number):
        """Yields dicts: text, token ids, logprob entries, and at last the finish."""
        ends = () if self.owner == "vllm" and asked.get("ignore_eos") else self.model.generation_config.eos_ids
        stops = asked["stop"][:1] if self.has("first_stop_only") else asked["stop"]
        stops = [] if self.has("stop_ignored") else stops
        if self.has("letters_skipped"):
            stops = [stop for stop in stops if len(stop) > 1]
        stream = asked["stream"]
        by_token = stream and self.has("decoded_by_token")
        decoder = TextDecoder(self.tokenizer, skip_special_tokens=not self.has("end_shown"))
        text, sent, finish, number_of_token = "", 0, "length", 0
        seen = ""
        if asked["echo"] and not self.has("echo_ignored"):
            yield {"text": self.tokenizer.decode(prompt), "ids": prompt, "entries": self.scored(prompt, asked)}
        for token, logits in self.steps(fed, asked, number):
            new = self.tokenizer.decode([token], skip_special_tokens=True) if by_token else decoder.push(token)
            text += new
            seen += self.tokenizer.decode([token]) if self.has("stop_by_token_text") else new
            entries = self.entries([token], [logits], asked)
            where = seen if self.has("stop_by_token_text") else text
            hits = [where.find(stop, len(text) - len(new) if self.has("stop_in_newest") else 0) for stop in stops]
            found = [(hit + len(stop), hit) for hit, stop in zip(hits, stops, strict=True) if hit >= 0]
            if found:
                end, hit = min(found)
                cut = end if self.has("stop_shown") else len(text) if self.has("text_after_stop") else hit
                text = text[:cut]
                whole = len(text) > sent or self.has("logprobs_too_long")
                kept = {"ids": [token], "entries": entries} if len(text) > sent else {"ids": [], "entries": entries[:0]}
                if self.has("logprobs_too_long") and whole:
                    kept = {"ids": [], "entries": entries}
                yield {"text": text[sent:], **kept}
                finish, sent = "stop", len(text)
                break
            held = 0 if self.has("stop_flashes") and stream else withheld(text, stops)
            held = max(held, 1) if self.has("absent_cuts") and stops else held
            if token in ends and not self.has("end_ignored"):
                finish = "stop"
            upto = max(len(text) - held, sent)
            yield {"text": text[sent:upto], "ids": [token], "entries": entries}
            sent, number_of_token = upto, number_of_token + 1
        else:
            lost = stream and (self.has("tail_lost") or by_token)
            rest = "" if lost else decoder.flush()
            rest = "" if self.has("half_dropped") else rest
            held = "" if self.has("held_for_ever") and stream else text[sent:]
            held = "" if self.has("absent_cuts") and stops else held
            if held + rest:
                yield {"text": held + rest, "ids": [], "entries": []}
        finish = {"finish_always_stop": "stop", "finish_always_length": "length"}.get(self.fault, finish)
        yield {"text": "", "ids": [], "entries": [], "finish": finish}

    def scored(self, prompt, asked):
        """The prompt's own logprobs."""
        if asked["logprobs"] is None:
            return []
        logits = all_logits(self.folder, tuple(prompt))
        if self.has("echo_shifted"):
            rows = self.entries(prompt[1:], logits[1:], asked)
        else:
            rows = self.entries(prompt[1:], logits[:-1], asked)
        return [(prompt[0], 0.0 if self.has("echo_first") else None, None), *rows]

    def entries(self, tokens, logits, asked):
        """Token, logprob, alternatives."""
        if asked["logprobs"] is None or self.has("logprobs_ignored"):
            return []
        found = []
        tempered = self.has("logprobs_tempered") and asked["temperature"] > 0
        divisor = np.float32(asked["temperature"] if tempered else 1)
        for token, given in zip(tokens, logits, strict=self.fault != "echo_shifted"):
            z = (given - given.max()) / divisor
            numbers = (z - np.log(np.exp(z).sum())).astype(np.float64) - 1e-3 * self.has("logprobs_off")
            best = np.argsort(-numbers, kind="stable")
            value = float(numbers[best[1] if self.has("logprobs_of_another") else token])
            value = -value if self.has("logprobs_positive") else value
            found.append((token, value, [(int(i), float(numbers[i])) for i in best[: min(asked["logprobs"], MOST)]]))
        return found

    # --- Answers ---

    def whole(self, prompt, asked, choices):
        """One JSON object."""
        given, counts = [], []
        for number, pieces in enumerate(map(list, choices)):
            ids = [token for piece in pieces for token in piece["ids"]]
            echoed = asked["echo"] and not self.has("echo_ignored")
            ended = self.has("end_not_counted") and ids[-1:] in [[end] for end in self.model.generation_config.eos_ids]
            counts.append(len(ids) - len(prompt) * echoed - ended)
            entries = [entry for piece in pieces for entry in piece["entries"]]
            choice = {
                "index": 0 if self.has("n_all_zero") else number,
                "text": "".join(piece["text"] for piece in pieces),
                "finish_reason": pieces[-1]["finish"],
                "logprobs": self.shaped(entries, ids) if asked["logprobs"] is not None and entries else None,
            }
            if asked.get("return_token_ids") and self.owner == "vllm":
                choice["token_ids"] = ids
            given.append(choice)
        return {"object": "text_completion", "choices": given, "usage": self.usage(prompt, counts)}

    def usage(self, prompt, counts):
        """The three counts."""
        completion = counts[0] if self.has("usage_of_one_choice") else sum(counts)
        completion -= self.has("usage_off_by_one")
        return {"prompt_tokens": len(prompt), "completion_tokens": completion, "total_tokens": len(prompt) + completion}

    def shaped(self, entries, ids):
        """The lists of OpenAI's completions, or the entries of its chat."""
        texts = [spelled(self.tokenizer, token) for token, _, _ in entries]
        values = [value for _, value, _ in entries]
        if self.has("logprobs_shifted"):
            values = [values[0], *values[:-1]]
        if self.shape == "chat":
            return {"content": [
                {"id": token, "token": text, "logprob": value, "top_logprobs": [{"id": i, "token": spelled(self.tokenizer, i), "logprob": v} for i, v in tops or []]}
                for (token, _, tops), text, value in zip(entries, texts, values, strict=True)
            ]}  # fmt: skip
        tops = [
            None if top is None else {spelled(self.tokenizer, i): value for i, value in top} for _, _, top in entries
        ]
        if self.has("logprobs_too_long"):
            texts = texts[: len(ids)]
        return {"tokens": texts, "token_logprobs": values, "top_logprobs": tops}

    def chunks(self, prompt, asked, choices):
        """The same as events, choice after choice, with a comment first and an event without choices last."""
        yield ": hello\n\n"
        counts = []
        for number, pieces in enumerate(choices):
            count, place = 0, 0
            for piece in pieces:
                text = piece["text"]
                if self.has("space_stripped") and place == 0:
                    text = text.lstrip(" ")
                choice = {"index": number, "text": text, "finish_reason": piece.get("finish")}
                if self.has("stream_without_finish"):
                    choice["finish_reason"] = None
                if asked["logprobs"] is not None and piece["entries"]:
                    choice["logprobs"] = self.shaped(piece["entries"], piece["ids"])
                if asked.get("return_token_ids") and self.owner == "vllm":
                    choice["token_ids"] = piece["ids"]
                data = json.dumps({"choices": [choice]})
                yield f"data: {data}\n\n" * (2 if self.has("piece_twice") and place == 2 else 1)
                count, place = count + len(piece["ids"]), place + 1
            counts.append(count)
        if (asked.get("stream_options") or {}).get("include_usage"):
            counts = [0] if self.has("usage_of_stream") else counts
            yield f"data: {json.dumps({'choices': [], 'usage': self.usage(prompt, counts)})}\n\n"
        if self.owner != "no_done":
            yield "data: [DONE]\n\n"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_of = None

    def log_message(self, *_):
        """Quiet."""

    def do_GET(self):
        """The list of models, for whatever is asked."""
        self.answer(200, {"object": "list", "data": [{"id": "served", "owned_by": self.server_of.owner}]})

    def do_POST(self):
        """A completion."""
        server = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if server.fault in BROKEN:
            return self.break_down(server.fault, body)
        try:
            prompt, asked, choices = server.complete(self.swapped(server, body))
            if asked["stream"]:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for event in server.chunks(prompt, asked, choices):
                    self.wfile.write(event.encode())
                self.close_connection = True
            else:
                self.answer(200, server.whole(prompt, asked, choices))
        except BadRequestError as error:
            self.answer(400, {"error": {"message": str(error), "code": 400}})
        except BrokenPipeError:
            pass
        except Exception as error:  # noqa: BLE001
            self.answer(500, {"error": {"message": repr(error), "code": 500}})
        return None

    def swapped(self, server, body):
        """Under load, with that fault, another request's body."""
        if not server.has("swapped"):
            return body
        with server.lock:
            server.running.append(body)
        time.sleep(0.02)
        with server.lock:
            other = next(
                (each for each in server.running if each is not body and each["prompt"] != body["prompt"]), body
            )
        time.sleep(0.02)
        with server.lock:
            server.running.remove(body)
        return body | {"prompt": other["prompt"]}

    def break_down(self, fault, body):
        """No answer."""
        if fault == "hangs":
            time.sleep(2)
        elif fault == "drips":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if body.get("stream") else "application/json")
            self.end_headers()
            try:
                for _ in range(30):
                    self.wfile.write(b": still here\n\n")
                    time.sleep(0.1)
            except OSError:
                pass
            self.close_connection = True
        elif fault == "dies":
            self.close_connection = True
            self.connection.close()
        else:
            texts = {"garbage": b"<html>", "no_choices": b"{}", "no_text": b'{"choices": [{"text": 5}]}'}
            stream = fault == "garbage_stream"
            data = b"data: {\n\n" if stream else texts[fault]
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if stream else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def answer(self, code, body):
        """JSON."""
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


# --- The model, asked once for each question ------------------------------------------------------------------


@lru_cache
def loaded(folder):
    """The model and its tokenizer."""
    return refgen.AutoModelForCausalLM.from_pretrained(folder), refgen.AutoTokenizer.from_pretrained(folder)


@lru_cache(maxsize=4096)
def generated(folder, fed, limit, chance, biases, ends, second, extra=()):
    """Tokens and the model's logits, as a tuple."""
    model, _ = loaded(folder)
    settings = {"max_new_tokens": limit, **dict(extra)}
    if chance is not None:
        settings |= {"do_sample": True, "top_k": 0} | settings
        settings |= {"seed": chance[0], "temperature": chance[1], "top_p": chance[2]}
    else:
        settings.pop("top_k", None), settings.pop("min_p", None)
    if biases:
        settings["sequence_bias"] = [[[token], bias] for token, bias in biases]
    if not ends:
        settings["eos_token_id"] = None
    if second:
        settings["logits_processor"] = [without_best]
    return tuple((int(step.tokens[0]), step.logits[0]) for step in model.steps([list(fed)], **settings))


def without_best(ids, scores):
    """The best score removed."""
    scores = np.array(scores)
    scores[np.arange(len(scores)), scores.argmax(axis=1)] = -np.inf
    return scores


@lru_cache
def all_logits(folder, ids):
    """The logits behind every token of a prompt."""
    return loaded(folder)[0]([list(ids)]).logits[0]


def withheld(text, stops):
    """How many characters at the end may be the beginning of a stop string."""
    return max((k for stop in stops for k in range(1, len(stop)) if text.endswith(stop[:k])), default=0)


def spelled(tokenizer, token):
    """A token as OpenAI's API writes it."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
