"""The official Python clients against a server, unchanged but for their base URL. Run by tools/conformance/run."""

import asyncio
import base64
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import audio
import elevenlabs.client
import elevenlabs.core
import elevenlabs.errors
import httpx
import ollama
import openai

here = pathlib.Path(__file__).parent
KEY = "sesame"
MODEL = "barkd/tiny"
ONE = "It looks easy until you try it."
TWO = ONE + " Then you see what it takes."  # two pieces with max_tokens
PAUSE = 6000  # samples between two pieces
KINDS = {"mp3": "mp3", "opus": "opus", "aac": "aac", "flac": "flac", "wav": "pcm_s16le"}


class Server:
    """bin/barkd on a free port, with folders of its own."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        environment = dict(os.environ, VOICES_DIR=self.folder.name + "/voices", BARKD_MODELS=self.folder.name + "/models",
                           BARKD_BACKEND="native", API_KEYS=KEY, CACHE_STATE="off", LOG_FORMAT="json", KEEP_ALIVE="1h")
        self.process = subprocess.Popen([here.parent.parent / "bin/barkd", "serve", "--host", "127.0.0.1", "--port", "0"],
                                        env=environment, stderr=subprocess.PIPE, text=True)
        self.log = []
        for line in self.process.stderr:
            said = json.loads(line)
            self.log.append(said)
            if said.get("message") == "serving":
                break
        else:
            raise SystemExit(f"barkd ended: {self.log}")
        self.url = "http://" + said["address"]
        # Somebody must read on, or the server stops at a full pipe.
        self.reader = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0, "barkd's exit status"
        self.reader.wait(60)
        self.process.stderr.close()
        self.folder.cleanup()


def events(text: str) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


class Lengths(unittest.TestCase):
    def lasts(self, samples: int, data: bytes, form: str, *, streamed: bool = False) -> bytes:
        """Checks that data decodes to so many samples, to the sample or to the frame, and returns them."""
        self.assertEqual(audio.probe(data), (KINDS[form], 48000 if form == "opus" else 24000))
        pcm = audio.decode(data)
        slack = {"mp3": audio.MP3_STREAM if streamed else 0, "aac": audio.AAC}.get(form, 0)
        self.assertGreaterEqual(len(pcm) // 2, samples, form)
        self.assertLessEqual(len(pcm) // 2, samples + slack, form)
        self.assertGreater(max(memoryview(pcm).cast("h")), 1000, "it is not silence")
        return pcm


class OpenAI(Lengths):
    def setUp(self) -> None:
        self.client = openai.OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0)
        self.speech = self.client.audio.speech
        self.request = {"model": MODEL, "voice": "alloy", "input": TWO, "extra_body": {"seed": 7}}
        self.pcm = self.speech.create(**self.request, response_format="pcm").content

    def tearDown(self) -> None:
        self.client.close()

    def test_each_format_decodes_to_its_length(self) -> None:
        for form in KINDS:
            with self.subTest(form):
                one = {**self.request, "input": ONE}
                pcm = self.speech.create(**one, response_format="pcm").content
                got = self.lasts(len(pcm) // 2, self.speech.create(**one, response_format=form).content, form)
                if form in ("flac", "wav"):
                    self.assertEqual(got, pcm, "lossless")

    def test_the_default_is_mp3(self) -> None:
        got = self.speech.create(model=MODEL, voice="alloy", input=ONE)
        self.assertEqual(got.response.headers["content-type"], "audio/mpeg")

    def test_raw_responses_have_the_headers(self) -> None:
        raw = self.speech.with_raw_response.create(**self.request, response_format="wav")
        self.assertEqual(raw.headers["x-barkd-seed"], "7")
        self.assertEqual(raw.headers["x-barkd-voice"], "slt")
        self.assertEqual(raw.headers["content-type"], "audio/wav")
        self.assertTrue(raw.headers["x-request-id"])
        self.assertEqual(audio.decode(raw.parse().content), self.pcm)

    def test_streams_are_the_whole_in_every_format(self) -> None:
        for form in [*KINDS, "pcm"]:
            with self.subTest(form), self.speech.with_streaming_response.create(
                **self.request, response_format=form, stream_format="audio"
            ) as response:
                data = b"".join(response.iter_bytes(1000))
                if form == "pcm":
                    self.assertEqual(data, self.pcm)
                    continue
                got = self.lasts(len(self.pcm) // 2, data, form, streamed=True)
                if form in ("flac", "wav"):
                    self.assertEqual(got, self.pcm)

    def test_a_stream_goes_to_a_file(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "speech.flac"
            with self.speech.with_streaming_response.create(**self.request, response_format="flac") as response:
                response.stream_to_file(path)
            self.assertEqual(audio.decode(path.read_bytes()), self.pcm)

    def test_events_hold_the_same_audio(self) -> None:
        with self.speech.with_streaming_response.create(**self.request, response_format="pcm", stream_format="sse") as response:
            self.assertTrue(response.headers["content-type"].startswith("text/event-stream"))
            said = events(response.read().decode())
        *deltas, done = said
        self.assertEqual({e["type"] for e in deltas}, {"speech.audio.delta"})
        self.assertEqual(b"".join(base64.b64decode(e["audio"]) for e in deltas), self.pcm)
        self.assertEqual(done["type"], "speech.audio.done")
        self.assertEqual(done["usage"]["total_tokens"], done["usage"]["input_tokens"] + done["usage"]["output_tokens"])

    def test_speed_changes_the_length(self) -> None:
        for speed in (0.25, 0.5, 2, 4):
            got = self.speech.create(**self.request, response_format="pcm", speed=speed).content
            self.assertAlmostEqual(len(got) * speed / len(self.pcm), 1, delta=0.02)

    def test_the_asynchronous_client(self) -> None:
        async def speak() -> bytes:
            async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key=KEY) as client:
                async with client.audio.speech.with_streaming_response.create(**self.request, response_format="pcm") as response:
                    return b"".join([part async for part in response.iter_bytes()])

        self.assertEqual(asyncio.run(speak()), self.pcm)

    def test_models(self) -> None:
        self.assertIn(MODEL, [m.id for m in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve(MODEL).object, "model")

    def test_errors_are_the_clients_own(self) -> None:
        for error, status, param, code, fields in [
            (openai.NotFoundError, 404, "model", "model_not_found", {"model": "tts-1"}),
            (openai.BadRequestError, 400, "voice", None, {"voice": "nobody"}),
            (openai.BadRequestError, 400, "speed", "invalid_value", {"speed": 5}),
            (openai.BadRequestError, 400, "input", "missing_parameter", {"input": ""}),
            (openai.BadRequestError, 400, "response_format", "invalid_value", {"response_format": "ogg"}),
            (openai.BadRequestError, 400, "instructions", "invalid_value", {"instructions": "Whisper."}),
        ]:
            with self.assertRaises(error) as caught:
                self.speech.create(**{**self.request, **fields})
            e = caught.exception
            self.assertEqual((e.status_code, e.param, e.code, e.type), (status, param, code, "invalid_request_error"))
            self.assertTrue(e.request_id)

    def test_another_key_is_refused(self) -> None:
        with openai.OpenAI(base_url=server.url + "/v1", api_key="wrong") as client, self.assertRaises(openai.AuthenticationError):
            client.audio.speech.create(**self.request)

    def test_voices_are_made_and_deleted(self) -> None:
        raw = self.speech.with_raw_response.create(**{**self.request, "voice": "none"})
        kept = plain.post("/v1/audio/voices", json={"name": "kept", "generation": raw.headers["x-barkd-generation"]})
        self.assertEqual(kept.status_code, 200, kept.text)
        npz = plain.get(f"/v1/audio/voices/{kept.json()['id']}?format=npz").content
        voice = self.client.audio.voices.create(name="sent", audio_sample=("voice.npz", io.BytesIO(npz)), consent="cons_1234")
        self.assertEqual((voice.object, voice.name, voice.type), ("audio.voice", "sent", "audio_sample"))
        said = [self.speech.create(**{**self.request, "voice": v}, response_format="pcm").content
                for v in ({"id": voice.id}, "sent", "kept", {"id": kept.json()["id"]})]
        self.assertEqual(len(set(said)), 1, "the same voice by each of its names")
        self.assertNotEqual(said[0], self.pcm)
        for id in (voice.id, kept.json()["id"]):
            self.assertTrue(self.client.audio.voices.delete(id).deleted)
        with self.assertRaises(openai.NotFoundError):
            self.client.audio.voices.delete(voice.id)
        with self.assertRaises(openai.BadRequestError):
            self.client.audio.voices.create(name="clone", audio_sample=("voice.wav", b"RIFF"), consent="cons_1234")


class ElevenLabs(Lengths):
    def setUp(self) -> None:
        self.client = elevenlabs.client.ElevenLabs(base_url=server.url, api_key=KEY)
        self.request = {"voice_id": "slt", "text": TWO, "seed": 7, "model_id": "eleven_multilingual_v2"}
        self.pcm = self.convert(output_format="pcm_24000")

    def convert(self, **more: object) -> bytes:
        return b"".join(self.client.text_to_speech.convert(**{**self.request, **more}))

    def test_each_format_has_the_rate_and_the_length_it_says(self) -> None:
        for form in ("mp3_22050_32", "mp3_24000_48", "mp3_44100_32", "mp3_44100_64", "mp3_44100_96", "mp3_44100_128", "mp3_44100_192",
                     "opus_48000_32", "opus_48000_64", "opus_48000_96", "opus_48000_128", "opus_48000_192",
                     "wav_8000", "wav_16000", "wav_22050", "wav_24000", "wav_44100", "wav_48000"):
            codec, rate = form.split("_")[0], int(form.split("_")[1])
            want = round(len(self.pcm) / 2 * rate / 24000)
            for speak in (self.client.text_to_speech.convert, self.client.text_to_speech.stream):
                with self.subTest(form):
                    data = b"".join(speak(**self.request, output_format=form))
                    self.assertEqual(audio.probe(data), ({"wav": "pcm_s16le"}.get(codec, codec), rate))
                    got = len(audio.decode(data, rate)) // 2
                    # An MP3 in pieces is a stream; a WAV's and an Opus' length is exact, at Opus' own rate to a sample of 24 kHz.
                    slack = {"mp3": 1105 + 2 * 1152, "opus": 1, "wav": 0}[codec]
                    self.assertTrue(0 <= got - want <= slack, f"{got} samples, not {want}")

    def test_samples_without_a_header(self) -> None:
        for rate in (8000, 16000, 22050, 32000, 44100, 48000):
            self.assertEqual(len(self.convert(output_format=f"pcm_{rate}")), 2 * round(len(self.pcm) / 2 * rate / 24000))
        for form, raw in (("ulaw_8000", "mulaw"), ("alaw_8000", "alaw")):
            data = self.convert(output_format=form)
            self.assertEqual(len(data), round(len(self.pcm) / 2 / 3))
            self.assertEqual(len(audio.decode(data, 8000, raw=raw)), 2 * len(data))

    def test_the_seed_and_speed_count(self) -> None:
        self.assertEqual(self.convert(output_format="pcm_24000"), self.pcm)
        settings = elevenlabs.VoiceSettings(stability=0.5, similarity_boost=0.75, style=0.0, use_speaker_boost=True, speed=1.2)
        fast = self.convert(output_format="pcm_24000", voice_settings=settings)
        self.assertAlmostEqual(len(fast) * 1.2 / len(self.pcm), 1, delta=0.02)

    def test_what_has_no_effect_is_named(self) -> None:
        with self.client.text_to_speech.with_raw_response.convert(**self.request, language_code="en") as response:
            self.assertEqual(response.headers["x-barkd-ignored"], "language_code")

    def test_another_key_is_refused(self) -> None:
        client = elevenlabs.client.ElevenLabs(base_url=server.url, api_key="wrong")
        with self.assertRaises(elevenlabs.core.ApiError) as caught:
            b"".join(client.text_to_speech.convert(**self.request))
        self.assertEqual(caught.exception.status_code, 401)
        self.assertEqual(caught.exception.body["detail"]["status"], "invalid_api_key")

    def test_voices_and_models(self) -> None:
        self.assertEqual([v.voice_id for v in self.client.voices.get_all().voices], ["rms", "slt"])
        self.assertEqual(self.client.voices.get("slt").category, "premade")
        first = self.client.voices.search(page_size=1)
        self.assertTrue(first.has_more)
        second = self.client.voices.search(page_size=1, next_page_token=first.next_page_token)
        self.assertFalse(second.has_more)
        self.assertEqual([v.name for v in first.voices + second.voices], ["rms", "slt"])
        self.assertEqual([(m.model_id, m.can_do_text_to_speech) for m in self.client.models.list()], [(MODEL, True)])

    def test_errors_are_the_clients_own(self) -> None:
        for fields, status in [({"text": ""}, 422), ({"output_format": "mp3_1_1"}, 422), ({"seed": -1}, 422),
                               ({"voice_id": "JBFqnCBsd6RMkjVDRZzb"}, 404), ({"model_id": "suno/absent"}, 404)]:
            with self.assertRaises(elevenlabs.core.ApiError) as caught:
                self.convert(**fields)
            self.assertEqual(caught.exception.status_code, status)
            detail = caught.exception.body["detail"]
            if status == 422:
                self.assertIsInstance(caught.exception, elevenlabs.errors.UnprocessableEntityError)
                self.assertEqual(set(detail[0]), {"loc", "msg", "type"})
            else:
                self.assertTrue(detail["status"].endswith("_not_found"))


class Ollama(unittest.TestCase):
    def test_probes(self) -> None:
        client = ollama.Client(host=server.url, headers={"Authorization": f"Bearer {KEY}"})
        self.assertEqual([m.model for m in client.list().models], [MODEL])
        plain.post(f"/cache/preload/{MODEL}").raise_for_status()
        (running,) = client.ps().models
        self.assertEqual((running.model, running.size_vram, running.details.family), (MODEL, 0, "bark"))
        self.assertGreater(running.size, 1_000_000)
        self.assertGreater(running.expires_at.timestamp(), 1e9)
        self.assertTrue(plain.get("/api/version").json()["version"])
        self.assertEqual(plain.head("/").status_code, 200)


class JavaScript(unittest.TestCase):
    def test_openai(self) -> None:
        done = subprocess.run(["node", "--test", "--test-timeout", "90000", here / "openai.test.mjs"],
                              env=dict(os.environ, BARKD_URL=server.url, BARKD_KEY=KEY), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    server = Server()
    plain = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"})
    try:
        outcome = unittest.main(exit=False, argv=sys.argv, verbosity=2, warnings="ignore")  # the clients leave sockets open
    finally:
        plain.close()
        server.close()
    sys.exit(not outcome.result.wasSuccessful())
