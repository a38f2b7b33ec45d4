package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/server/audio/sndfile"
	"barkd/server/models/untrained"
)

func TestMain(m *testing.M) {
	if os.Getenv("BARKD_TEST_PROGRAM") != "" { // a test runs this program to kill it
		main()
	}
	if !sndfile.Available {
		fmt.Println("skipped: these tests ask for mp3, the API's default, which a build without cgo cannot write")
		return
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),    // one for the process
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2")) // ends within 10 s of a server
}

// outcome of one run of the program.
type outcome struct {
	code     int
	out, err string
}

// barkd runs the program in the process, with an environment of its own.
func barkd(t *testing.T, env map[string]string, stdin string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(context.Background(), args, stdio{strings.NewReader(stdin), &out, &errs}, lookup(t, env))
	return outcome{code, out.String(), errs.String()}
}

// lookup is the environment: nothing of this machine's, and an empty folder of models.
func lookup(t *testing.T, env map[string]string) func(string) string {
	t.Helper()
	dir := t.TempDir()
	return func(name string) string {
		if v, ok := env[name]; ok {
			return v
		}
		switch name {
		case "BARKD_MODELS":
			return dir
		case "CACHE_STATE", "VOICES_DIR":
			return "off"
		}
		return ""
	}
}

var simulated = map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0"}

func TestUsageErrorsExitWith2AndOneSentence(t *testing.T) {
	for name, args := range map[string][]string{
		"no such command":  {"sing"},
		"no such flag":     {"models", "--nope"},
		"no text":          {"synth", "-o", "x.wav"},
		"no output":        {"synth", "--text", "a"},
		"bad seed":         {"synth", "--text", "a", "-o", "x.wav", "--seed", "-1"},
		"bad rules":        {"synth", "--text", "a", "-o", "x.wav", "--rules", "both"},
		"bad kv":           {"synth", "--text", "a", "-o", "x.wav", "--kv", "q4"},
		"bad tokens":       {"synth", "--text", "a", "-o", "x.wav", "--max-tokens", "-3"},
		"text like a flag": {"synth", "--text", "-5 degrees", "-o", "x.wav"}, // kong says to write --text=
		"greedy and hot":   {"synth", "--text", "a", "-o", "x.wav", "--greedy", "--temperature-fine", "1"},
		"bad type":         {"convert", "x", "-o", "x.gguf", "--type", "q3"},
		"bad threads":      {"devices", "--threads", "many"},
		"bad backend":      {"models", "--backend", "cloud"},
	} {
		t.Run(name, func(t *testing.T) {
			got := barkd(t, nil, "", args...)
			assert.Equal(t, 2, got.code)
			assert.Regexp(t, `^barkd: [^\n]+\n$`, got.err)
		})
	}
}

func TestHelpIsNoError(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"synth", "--help"}} {
		got := barkd(t, nil, "", args...)
		assert.Zero(t, got.code)
		assert.Contains(t, got.out, "Usage: barkd")
		assert.Empty(t, got.err)
	}
	assert.Contains(t, barkd(t, nil, "", "serve", "--help").out, "$MAX_CACHED_MODELS")
}

func TestEveryBadSettingIsNamedAtOnce(t *testing.T) {
	env := map[string]string{
		"PORT": "65536", "MAX_CACHED_MODELS": "0", "BARKD_BACKEND": "gpu", "MOCK_TIME_SCALE": "-1", "MAX_CONCURRENT_REQUESTS": "no",
		"MAX_QUEUED_REQUESTS": "1.5", "CACHE_WARMUP_ENABLED": "maybe", "MEMORY_THRESHOLD_GB": "NaN", "SHUTDOWN_GRACE_SECONDS": "-5",
		"LOG_LEVEL": "loud", "MAX_QUEUED_PER_MODEL": "-1", "RATE_LIMIT_REQUESTS": "-1", "RATE_LIMIT_CHARACTERS": "many", "RATE_LIMIT_CONCURRENT": "0.5",
		"REQUEST_TIMEOUT_SECONDS": "-1", "MAX_INPUT_CHARS": "0", "MAX_BODY_BYTES": "1", "LOG_FORMAT": "xml", "BARKD_THREADS": "-1", "DRAIN_SECONDS": "-1",
		"AUDIO_CACHE_BYTES": "much",
	}
	got := barkd(t, env, "", "serve")
	assert.Equal(t, 2, got.code)
	for name, value := range env {
		assert.Contains(t, got.err, name+`="`+value+`" must be`)
	}
	assert.Equal(t, 1, strings.Count(got.err, "\n"))
}

func TestFaultPlanIsReadFromTextOrFileAndBadOnesAreNamed(t *testing.T) {
	const plan = `{"rules": [{"fault": "load_fails", "error": "bad_model", "model": "suno/*"}]}`
	file := filepath.Join(t.TempDir(), "plan.json")
	require.NoError(t, os.WriteFile(file, []byte(plan), 0o600))
	out := filepath.Join(t.TempDir(), "out.wav")
	for _, value := range []string{plan, "@" + file} {
		env := map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0", "MOCK_FAULTS": value}
		got := barkd(t, env, "", "synth", "--model", "suno/bark", "--text", "Hello.", "-o", out)
		assert.NotZero(t, got.code)
		assert.Contains(t, got.err, "load_fails by the fault plan")
		got = barkd(t, env, "", "synth", "--model", "barkd/tiny", "--text", "Hello.", "-o", out)
		assert.Zero(t, got.code, got.err)
	}
	env := map[string]string{"MOCK_FAULTS": `{"rules": [{"fault": "luck"}]}`, "PORT": "bad"}
	got := barkd(t, env, "", "serve")
	assert.Equal(t, 2, got.code)
	assert.Contains(t, got.err, "MOCK_FAULTS: fault plan: rule 1 (luck): no such fault")
	assert.Contains(t, got.err, `PORT="bad"`, "all at once")
	got = barkd(t, map[string]string{"MOCK_FAULTS": "@" + file + ".absent"}, "", "serve")
	assert.Contains(t, got.err, "MOCK_FAULTS: open")
}

func TestFlagBeatsEnvironmentBeatsDefault(t *testing.T) {
	env := map[string]string{"PORT": "1", "LOG_LEVEL": "", "MAX_CACHED_MODELS": "bad"}
	got := barkd(t, env, "", "serve", "--port", "bad-too")
	assert.Contains(t, got.err, `PORT="bad-too"`)
	assert.Contains(t, got.err, `MAX_CACHED_MODELS="bad"`)
	assert.NotContains(t, got.err, "LOG_LEVEL", "an empty variable is none")
}

func TestSynthWritesTheAudioAndSaysWhereTimeWent(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.wav")
	got := barkd(t, simulated, "", "synth", "--model", "suno/bark-small", "--text", "Hello.", "-o", out, "--seed", "7")
	require.Zero(t, got.code, got.err)
	for _, want := range []string{"seed 7", "load ", "semantic ", "coarse ", "fine ", "codec ", "real-time factor", "memory: model"} {
		assert.Contains(t, got.err, want)
	}
	assert.NotContains(t, got.err, "untrained")
	wav, err := os.ReadFile(out)
	require.NoError(t, err)
	assert.Equal(t, "RIFF", string(wav[:4]))
	assert.EqualValues(t, 24000, binary.LittleEndian.Uint32(wav[24:]))
	assert.Greater(t, len(wav), 44)
}

func TestDrawnSeedIsShownAndRepeatsTheAudio(t *testing.T) {
	speak := func(args ...string) outcome {
		got := barkd(t, simulated, "Hello.", append([]string{"synth", "--model", "suno/bark", "--text", "-", "-o", "-"}, args...)...)
		require.Zero(t, got.code, got.err)
		return got
	}
	first := speak()
	seed := regexp.MustCompile(`seed (\d+)`).FindStringSubmatch(first.err)
	require.NotNil(t, seed, first.err)
	assert.Equal(t, first.out, speak("--seed", seed[1]).out)
	assert.NotEqual(t, first.out, speak().out)
}

func TestSavedVoiceSpeaksAgain(t *testing.T) {
	dir := t.TempDir()
	voice, out := filepath.Join(dir, "v.npz"), filepath.Join(dir, "out.wav")
	got := barkd(t, simulated, "", "synth", "--model", "suno/bark", "--text", "Hello there, my friend.", "-o", out, "--save-voice", voice)
	require.Zero(t, got.code, got.err)
	for _, name := range []string{voice, strings.TrimSuffix(voice, ".npz")} {
		got = barkd(t, simulated, "", "synth", "--model", "suno/bark", "--text", "Hello.", "-o", out, "--voice", name)
		assert.Zero(t, got.code, got.err)
	}
}

func TestTextMayBeginWithAMinus(t *testing.T) {
	got := barkd(t, simulated, "", "synth", "--model", "suno/bark", "--text=-5 degrees", "-o", "-")
	assert.Zero(t, got.code, got.err)
}

func TestLongTextIsCutExceptByHFRules(t *testing.T) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog and walks home. ", 6)
	args := []string{"synth", "--model", "suno/bark", "--text", text, "-o", filepath.Join(t.TempDir(), "o.wav")}
	assert.Contains(t, barkd(t, simulated, "", args...).err, "6 pieces")
	assert.NotContains(t, barkd(t, simulated, "", append(args, "--rules", "hf")...).err, "pieces")
}

func TestFailuresExitWith1AndOneSentence(t *testing.T) {
	dir := t.TempDir()
	noVoice, noModel := filepath.Join(dir, "bad.npz"), filepath.Join(dir, "bad.gguf")
	require.NoError(t, os.WriteFile(noVoice, []byte("PK\x03\x04 no"), 0o600))
	require.NoError(t, os.WriteFile(noModel, []byte("GGUF no"), 0o600))
	synth := func(args ...string) []string {
		return append([]string{"synth", "--text", "Hello.", "-o", filepath.Join(dir, "o.wav")}, args...)
	}
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		want string
	}{
		"unknown model":       {simulated, synth("--model", "suno/nope"), "suno/nope"},
		"model to pull":       {nil, synth("--model", "suno/bark"), "barkd pull suno/bark"},
		"no such model file":  {nil, synth("--model", filepath.Join(dir, "none.gguf")), "none.gguf"},
		"damaged model":       {nil, synth("--model", noModel), "bad.gguf"},
		"unknown voice":       {simulated, synth("--model", "suno/bark", "--voice", "nobody"), `no voice "nobody"`},
		"no such voice file":  {simulated, synth("--model", "suno/bark", "--voice", "nobody.npz"), "nobody.npz"},
		"damaged voice":       {simulated, synth("--model", "suno/bark", "--voice", noVoice), "bad.npz"},
		"no such folder":      {simulated, synth("-o", filepath.Join(dir, "none", "o.wav")), "cannot write"},
		"output is a folder":  {simulated, synth("-o", dir), "cannot write"},
		"empty text":          {simulated, synth("--text", ""), "text is empty"},
		"invalid UTF-8":       {simulated, synth("--text", "a\xff"), "not valid UTF-8"},
		"inspect nothing":     {nil, []string{"inspect", filepath.Join(dir, "none.gguf")}, "none.gguf"},
		"inspect damaged":     {nil, []string{"inspect", noModel}, "bad.gguf"},
		"inspect no id":       {nil, []string{"inspect", "../x"}, "neither"},
		"inspect the default": {nil, []string{"inspect", "barkd/tiny"}, "no file"},
		"convert nothing":     {nil, []string{"convert", filepath.Join(dir, "none"), "-o", filepath.Join(dir, "x.gguf")}, "none"},
		"port in use":         {map[string]string{"BARKD_BACKEND": "mock", "HOST": "192.0.2.1"}, []string{"serve"}, "cannot listen"},
	} {
		t.Run(name, func(t *testing.T) {
			got := barkd(t, c.env, "", c.args...)
			assert.Equal(t, 1, got.code, got.err)
			assert.Regexp(t, `^barkd: [^\n]+\n$`, got.err)
			assert.Contains(t, got.err, c.want)
		})
	}
	assert.NoFileExists(t, filepath.Join(dir, "o.wav"))
}

func TestFailedSynthLeavesTheOlderFile(t *testing.T) {
	out := filepath.Join(t.TempDir(), "o.wav")
	require.NoError(t, os.WriteFile(out, []byte("older"), 0o600))
	require.Equal(t, 1, barkd(t, simulated, "", "synth", "--text", "", "-o", out).code)
	left, err := os.ReadFile(out)
	require.NoError(t, err)
	assert.Equal(t, "older", string(left))
}

func TestInterruptedSynthSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var errs bytes.Buffer
	code := run(ctx, []string{"synth", "--model", "suno/bark", "--text", "Hi.", "-o", "-"}, stdio{nil, io.Discard, &errs}, lookup(t, simulated))
	assert.Equal(t, 1, code)
	assert.Equal(t, "barkd: interrupted\n", errs.String())
}

func TestListingsOfTheSimulatedRuntime(t *testing.T) {
	assert.Contains(t, barkd(t, simulated, "", "models").out, "suno/bark-small")
	assert.Contains(t, barkd(t, simulated, "", "voices", "--model", "suno/bark").out, "v2/en_speaker_6\n")
	assert.Contains(t, barkd(t, simulated, "", "devices").out, "cpu")
	assert.Contains(t, barkd(t, nil, "", "version").out, "barkd "+version)
}

func TestInspectShowsConfigurationTensorsAndDigests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	file, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, untrained.Write(file, 1))
	require.NoError(t, file.Close())
	got := barkd(t, nil, "", "inspect", path)
	require.Zero(t, got.code, got.err)
	for _, want := range []string{`bark\.trained +false`, `semantic\.h\.0\.attn\.c_attn\.weight +\S+ +\d+x\d+ +\d+ +[0-9a-f]{64}`, `tokens +\d+ of string`,
		`\d+ bytes of f32`, `file sha256 [0-9a-f]{64}`} {
		assert.Regexp(t, want, got.out)
	}
}

func TestVersionIsThatOfTheNativeLibrary(t *testing.T) {
	file, err := os.ReadFile("../cmake/Version.cmake")
	require.NoError(t, err)
	assert.Contains(t, string(file), "BARKRT_VERSION "+version+")")
}

// logWatch collects a server's log and tells the address once it serves.
type logWatch struct {
	mu      sync.Mutex
	text    bytes.Buffer
	address chan string
}

func (w *logWatch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var line struct{ Message, Address string }
	if json.Unmarshal(p, &line) == nil && line.Message == "serving" {
		w.address <- line.Address
	}
	return w.text.Write(p)
}

func (w *logWatch) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// server is a running `barkd serve`.
type server struct {
	url  string
	log  *logWatch
	stop func() int // as SIGTERM does; returns the exit code
}

func startServer(t *testing.T, env map[string]string, args ...string) server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := &logWatch{address: make(chan string, 1)}
	code := make(chan int, 1)
	getenv := lookup(t, env)
	go func() {
		code <- run(ctx, append([]string{"serve", "--host", "127.0.0.1", "--port", "0"}, args...), stdio{nil, io.Discard, log}, getenv)
	}()
	s := server{log: log, stop: sync.OnceValue(func() int { cancel(); return <-code })}
	select {
	case address := <-log.address:
		s.url = "http://" + address
	case c := <-code:
		t.Fatalf("exit code %d: %s", c, log)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		s.stop()
	})
	return s
}

func (s server) post(t *testing.T, path, body string) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.Post(s.url+path, "application/json", strings.NewReader(body))
	require.NoError(t, err)
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, all
}

func TestServeSpeaksCachesAndShutsDownInOrder(t *testing.T) {
	s := startServer(t, map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0", "CACHE_WARMUP_ENABLED": "false", "MAX_CACHED_MODELS": "2",
		"MEMORY_THRESHOLD_GB": "1000"})
	for _, model := range []string{"suno/bark", "suno/bark-small", "suno/bark", "mock/bark-xl"} {
		resp, body := s.post(t, "/v1/audio/speech", `{"model":"`+model+`","input":"Hello.","voice":"nova"}`)
		require.Equal(t, 200, resp.StatusCode, "%s", body)
		assert.Equal(t, "v2/en_speaker_9", resp.Header.Get("X-Barkd-Voice"))
	}
	resp, err := http.Get(s.url + "/cache/stats")
	require.NoError(t, err)
	var stats map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&stats))
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, []any{"suno/bark", "mock/bark-xl"}, stats["cached_models"], "least recently used first out")
	assert.EqualValues(t, 1, stats["hits"])
	assert.EqualValues(t, 3, stats["misses"])
	assert.EqualValues(t, 1, stats["evictions"])
	assert.EqualValues(t, 3, stats["total_loads"])
	assert.EqualValues(t, 0.25, stats["hit_rate"])
	assert.Greater(t, stats["cache_memory_mb"], 4000.0)
	assert.EqualValues(t, 1000, stats["memory_threshold_gb"])

	assert.Zero(t, s.stop())
	log := s.log.String()
	assert.Less(t, strings.Index(log, "shutting down"), strings.LastIndex(log, "model freed"))
	assert.Less(t, strings.LastIndex(log, "model freed"), strings.Index(log, `"stopped"`))
}

func TestWarmUpLoadsWhatIsThereAndNamesTheCommandForWhatIsNot(t *testing.T) {
	s := startServer(t, map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0", "WARMUP_MODELS": "suno/none, suno/bark-small"})
	// A preload joins the warm-up's own load or finds its result.
	resp, body := s.post(t, "/cache/preload/suno%2Fbark-small", "")
	require.Equal(t, 200, resp.StatusCode, "%s", body)
	require.Eventually(t, func() bool { // the warm-up is over
		resp, err := http.Get(s.url + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	}, time.Minute, time.Millisecond)
	require.Zero(t, s.stop())
	assert.Contains(t, s.log.String(), "barkd pull suno/none")
}

func TestOneRequestMayNotBlockAnotherModelsLoad(t *testing.T) {
	s := startServer(t, map[string]string{"BARKD_BACKEND": "mock", "MOCK_TIME_SCALE": "0", "CACHE_WARMUP_ENABLED": "false"})
	var clients sync.WaitGroup
	for _, model := range []string{"suno/bark", "suno/bark-small", "mock/bark-xl", "barkd/tiny"} {
		for range 3 {
			clients.Go(func() {
				resp, body := s.post(t, "/v1/audio/speech", `{"model":"`+model+`","input":"Hello."}`)
				assert.Equal(t, 200, resp.StatusCode, "%s", body)
			})
		}
	}
	clients.Wait()
}

func TestPortInUseIsOneSentence(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	got := barkd(t, simulated, "", "serve", "--host", "127.0.0.1", "--port", port)
	assert.Equal(t, 1, got.code)
	assert.Regexp(t, `^barkd: cannot listen: [^\n]+\n$`, got.err)
}
