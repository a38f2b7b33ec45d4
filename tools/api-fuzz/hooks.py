"""What the document cannot say: which models and voices there are, and which text can be spoken, nor how long that takes. Without it almost every request
that is meant to pass would be refused, and the server's work never be reached."""

import schemathesis

MODELS = {"model": "barkd/tiny", "model_id": "barkd/tiny"}
TEXTS = {"input", "text"}


@schemathesis.hook
def map_case(context, case):
    meta = case.meta
    if meta is not None and meta.generation.mode.is_negative:
        return case
    body = case.body
    if isinstance(body, dict):
        for name, value in body.items():
            if name in MODELS and isinstance(value, str):
                body[name] = MODELS[name]
            elif name in TEXTS and isinstance(value, str):
                body[name] = "a" + value[:60]
            elif name == "voice" and isinstance(value, str):
                body[name] = "default" if case.path.startswith("/synthesize") else "alloy"
            elif name == "voice" and isinstance(value, dict):
                body[name] = {"id": "alloy"}
            elif name == "language" and isinstance(value, str):
                body[name] = "en"
        if case.path == "/v1/audio/speech":
            body["model"] = MODELS["model"]
            if body.get("progress"):
                body["stream_format"] = "sse"
    if isinstance(body, list) and case.path == "/cache/warmup":
        case.body = ["barkd/tiny"]
    if case.path_parameters and "voice" in case.path_parameters and case.path.startswith(("/v1/text-to-speech", "/v1/voices")):
        case.path_parameters["voice"] = "v2/en_speaker_6"
    for header in ("X-Barkd-Model", "X-Llm-D-Model-Name-Rewrite"):
        if case.headers and header in case.headers:
            case.headers[header] = "barkd/tiny"
    if case.headers and "X-Barkd-Timeout" in case.headers:
        case.headers["X-Barkd-Timeout"] = "1m30s"
    if case.query and "model" in case.query:
        case.query["model"] = "barkd/tiny"
    return case
