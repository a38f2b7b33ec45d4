package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// gpus is a server with two simulated GPUs and a fault plan.
func gpus(t *testing.T, rules string, env map[string]string) server {
	t.Helper()
	all := map[string]string{"MOCK_GPUS": "24GB,24GB", "MOCK_FAULTS": `{"rules": [` + rules + `]}`, "MEMORY_THRESHOLD_GB": "0"}
	for name, value := range env {
		all[name] = value
	}
	return startServer(t, quick(all))
}

// get returns a JSON answer.
func (s server) get(t *testing.T, path string) (status int, body map[string]any) {
	t.Helper()
	resp, err := http.Get(s.url + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
	return resp.StatusCode, body
}

// homes are the devices of the models that are not on their way out.
func (s server) homes(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, e := range s.stats(t)["entries"].([]any) {
		entry := e.(map[string]any)
		if state := entry["state"]; state == "ready" || state == "leased" {
			out[entry["model"].(string)] = entry["device"].(string)
		}
	}
	return out
}

// states are those of the devices.
func (s server) states(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, p := range s.stats(t)["pools"].([]any) {
		pool := p.(map[string]any)
		out[pool["pool"].(string)] = pool["state"].(string)
		assert.Equal(t, pool["state"] == "lost", pool["lost"] != nil && pool["lost_at"] != nil, "%v", pool)
	}
	return out
}

// An answer is what one client got.
type answer struct {
	status int
	code   string // of an error
	audio  bool   // whole
}

// ask is one client's request: for the whole audio, or for events.
func (s server) ask(client *http.Client, model string, n int, events bool) (answer, error) {
	order := fmt.Sprintf(`{"model":%q,"input":"Client %d speaks.","response_format":"pcm"`, model, n)
	if events {
		order += `,"stream_format":"sse"`
	}
	resp, err := client.Post(s.url+"/v1/audio/speech", "application/json", strings.NewReader(order+"}"))
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, audio: resp.StatusCode == 200 && len(body) > 0}
	failed := body
	if a.audio && events {
		a.audio = strings.Contains(string(body), "event: speech.audio.done")
		_, last, _ := strings.Cut(string(body), "event: speech.audio.error\ndata: ")
		failed = []byte(last)
	}
	if !a.audio {
		var envelope struct{ Error struct{ Code string } }
		if err := json.Unmarshal([]byte(strings.TrimSpace(string(failed))), &envelope); err != nil {
			return a, fmt.Errorf("no audio and no error: %q: %w", body, err)
		}
		a.code = envelope.Error.Code
	}
	return a, nil
}

// askAll has clients at work at the same time, every other one with events, while a device is lost. It returns how many
// answers were whole.
func (s server) askAll(t *testing.T, clients, each int, models []string) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	var whole atomic.Int64
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			for n := range each {
				events := i%2 == 0
				got, err := s.ask(client, models[(i+n)%len(models)], i*each+n, events)
				assert.NoError(t, err)
				switch {
				case got == answer{200, "", true}:
					whole.Add(1)
				case !events:
					assert.Fail(t, "nothing was sent when the device was lost", "%+v", got)
				default:
					assert.Contains(t, []string{"device_lost", "device_failed"}, got.code)
				}
			}
		})
	}
	running.Wait()
	return int(whole.Load())
}

// tellsOfTheLoss checks that everyone is told of a lost device, and that models are on the one that is left.
func (s server) tellsOfTheLoss(t *testing.T, lost, left string) {
	t.Helper()
	assert.Equal(t, map[string]string{"cpu": "ok", lost: "lost", left: "ok"}, s.states(t))
	for model, home := range s.homes(t) {
		assert.Equal(t, left, home, model)
	}
	status, body := s.get(t, "/readyz")
	assert.Equal(t, 200, status)
	assert.Contains(t, fmt.Sprint(body["devices"]), "id:"+lost+" lost:")
	resp, err := http.Get(s.url + "/metrics")
	require.NoError(t, err)
	metrics, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Contains(t, string(metrics), fmt.Sprintf("bark_device_lost{pool=%q} 1\n", lost))
	assert.Contains(t, string(metrics), fmt.Sprintf("bark_device_lost{pool=%q} 0\n", left))
	for model := range s.homes(t) {
		assert.Contains(t, string(metrics), fmt.Sprintf("bark_cache_model_bytes{model=%q,pool=%q}", model, left))
	}
}

func TestDeviceLostUnderLoadLosesNoRequest(t *testing.T) {
	const clients, each = 20, 3
	for _, fault := range []string{"device_lost_in_load", "device_lost_in_session", "device_lost", "device_lost_in_stream"} {
		t.Run(fault, func(t *testing.T) {
			nth := 12
			if fault == "device_lost_in_load" {
				nth = 1
			}
			rule := fmt.Sprintf(`{"fault": %q, "model": "suno/bark-small", "nth": %d}`, fault, nth)
			s := gpus(t, rule, map[string]string{"MAX_CONCURRENT_REQUESTS": "8", "MOCK_TIME_SCALE": "0.002"})
			whole := s.askAll(t, clients, each, []string{"suno/bark-small", "suno/bark-small", "barkd/tiny"})
			assert.Greater(t, whole, clients*each/2)
			lost, left := "cuda:0", "cuda:1"
			if s.states(t)[left] == "lost" {
				lost, left = left, lost
			}
			s.speak(t, "suno/bark-small", "")
			s.tellsOfTheLoss(t, lost, left)
			assert.Equal(t, left, s.homes(t)["suno/bark-small"])
			require.Eventually(t, func() bool { return strings.Contains(s.log.String(), "a device is lost") }, 10*time.Second, time.Millisecond)
			assert.Equal(t, 1, strings.Count(s.log.String(), "a device is lost"))
			assert.Zero(t, s.stop())
		})
	}
}

func TestEveryDeviceLostEndsAtTheCPUIfItIsAllowed(t *testing.T) {
	const rules = `{"fault": "device_lost", "nth": 1}, {"fault": "device_lost_in_load", "nth": 2}`
	s := gpus(t, rules, nil)
	s.speak(t, "suno/bark-small", "")
	assert.Equal(t, map[string]string{"suno/bark-small": "cpu"}, s.homes(t))
	status, _ := s.get(t, "/livez")
	assert.Equal(t, 200, status)

	s = gpus(t, rules, map[string]string{"DEVICES": "cuda:0,cuda:1"})
	resp, body := s.post(t, "/v1/audio/speech", `{"model":"suno/bark-small","input":"Hello."}`)
	assert.Equal(t, 503, resp.StatusCode)
	assert.Contains(t, string(body), `"device_lost"`)
	assert.Contains(t, string(body), "started again")
	assert.NotEmpty(t, resp.Header.Get("Retry-After"))
	for _, probe := range []string{"/livez", "/readyz"} {
		status, body := s.get(t, probe)
		assert.Equal(t, 503, status, probe)
		assert.Equal(t, "devices_lost", body["status"], probe)
	}
}

func TestPinnedAndWarmModelsAreLoadedElsewhereAtOnce(t *testing.T) {
	s := gpus(t, `{"fault": "device_lost", "model": "barkd/tiny", "nth": 1}`, map[string]string{"MODEL_DEVICES": "barkd/tiny=cuda:0|cpu,suno/bark=cuda:0|cpu,mock/small-1=cuda:0|cpu",
		"DEVICES": "cuda:0,cpu", "PINNED_MODELS": "suno/bark", "CACHE_WARMUP_ENABLED": "true", "WARMUP_MODELS": "suno/bark-small", "MAX_CACHED_MODELS": "9"})
	s.speak(t, "mock/small-1", "") // nobody's favourite
	warm := map[string]string{"suno/bark": "cuda:0", "suno/bark-small": "cuda:0", "mock/small-1": "cuda:0"}
	require.Eventually(t, func() bool { return assert.ObjectsAreEqual(warm, s.homes(t)) }, 10*time.Second, 10*time.Millisecond)
	s.speak(t, "barkd/tiny", "")
	after := map[string]string{"suno/bark": "cpu", "suno/bark-small": "cpu", "barkd/tiny": "cpu"}
	require.Eventually(t, func() bool { return assert.ObjectsAreEqual(after, s.homes(t)) }, 10*time.Second, 10*time.Millisecond)
}

func TestSettingsOfDevicesAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"unknown device":           {map[string]string{"DEVICES": "cuda:0,cuda:7"}, `DEVICES names the device "cuda:7"`},
		"no device":                {map[string]string{"DEVICES": ","}, "DEVICES=\",\" must be auto"},
		"unknown device of one":    {map[string]string{"MODEL_DEVICES": "suno/bark=tpu"}, `MODEL_DEVICES names the device "tpu"`},
		"a model without a device": {map[string]string{"MODEL_DEVICES": "suno/bark="}, "MODEL_DEVICES="},
		"a device without a model": {map[string]string{"MODEL_DEVICES": "=cpu"}, "MODEL_DEVICES="},
		"a model twice":            {map[string]string{"MODEL_DEVICES": "a=cpu,a=cpu"}, "MODEL_DEVICES="},
		"GPUs without a size":      {map[string]string{"MOCK_GPUS": "many"}, "MOCK_GPUS="},
	} {
		env := map[string]string{"BARKD_BACKEND": "mock", "PORT": "0", "MOCK_GPUS": "1GB"}
		for name, value := range c.env {
			env[name] = value
		}
		got := barkd(t, env, "", "serve")
		assert.Equal(t, exitUsage, got.code, name)
		assert.Contains(t, got.err, c.want, name)
	}
}

func TestDevicesListsThoseThatModelsCanBeOn(t *testing.T) {
	got := barkd(t, map[string]string{"BARKD_BACKEND": "mock", "MOCK_GPUS": "24GB,8GB"}, "", "devices")
	require.Zero(t, got.code, got.err)
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	require.Len(t, lines, 4)
	assert.Regexp(t, `^cuda:1 +simulated GPU +100 +8000\.0 MB +8000\.0 MB`, lines[3])
}
