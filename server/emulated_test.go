//go:build cgo && emulated

package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/models/untrained"
)

// emulated is a server, a process of its own, with two emulated GPUs and the models test/a and test/b. losses are
// kernels in which a device is lost, as BARKRT_EMULATED_LOSSES has them.
func emulated(t *testing.T, losses string, settings ...string) (s server, stop func() error) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "test"), 0o700))
	for i, name := range []string{"a", "b"} {
		require.NoError(t, untrained.WriteFile(filepath.Join(dir, "test", name+".gguf"), uint64(i), untrained.SmallConfig()))
	}
	p := program(t, append([]string{"BARKD_BACKEND=native", "BARKD_MODELS=" + dir, "BARKRT_EMULATED_DEVICES=2:256", "BARKRT_EMULATED_LOSSES=" + losses,
		"CACHE_BUDGET=cuda:0=200MB,cuda:1=100MB"}, settings...)...)
	s = server{url: "http://" + p.Address}
	require.Contains(t, s.states(t), "cuda:1", "two emulated GPUs")
	return s, p.Stop
}

// pcm speaks and returns the samples.
func (s server) pcm(t *testing.T, model string) string {
	t.Helper()
	resp, err := http.Post(s.url+"/v1/audio/speech", "application/json",
		strings.NewReader(`{"model":"`+model+`","input":"Hello.","seed":7,"max_tokens":8,"response_format":"pcm"}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, "%s", body)
	require.NotEmpty(t, body)
	return string(body)
}

func TestEmulatedGPUsSpeakOverHTTP(t *testing.T) {
	s, stop := emulated(t, "", "MODEL_DEVICES=test/a=cuda:0,test/b=cuda:1")
	a := s.pcm(t, "test/a")
	s.pcm(t, "test/b")
	assert.Equal(t, map[string]string{"test/a": "cuda:0", "test/b": "cuda:1"}, s.homes(t))
	assert.NotEqual(t, strings.Repeat("\x00", len(a)), a)
	require.NoError(t, stop())
}

func TestRequestOnALostEmulatedGPUIsAnsweredByTheOther(t *testing.T) {
	whole, stop := emulated(t, "")
	want := whole.pcm(t, "test/a")
	require.Equal(t, map[string]string{"test/a": "cuda:0"}, whole.homes(t))
	require.NoError(t, stop())

	s, stop := emulated(t, "0:150")
	assert.Equal(t, want, s.pcm(t, "test/a"), "begun again on the other one, it is the same")
	s.tellsOfTheLoss(t, "cuda:0", "cuda:1")
	assert.Equal(t, map[string]string{"test/a": "cuda:1"}, s.homes(t))
	require.NoError(t, stop())
}

func TestEmulatedGPULostUnderLoadLosesNoRequest(t *testing.T) {
	s, stop := emulated(t, "0:400", "MAX_CONCURRENT_REQUESTS=4")
	const clients, each = 5, 2
	whole := s.askAll(t, clients, each, []string{"test/a", "test/b"})
	assert.GreaterOrEqual(t, whole, clients*each/2)
	s.tellsOfTheLoss(t, "cuda:0", "cuda:1")
	require.NoError(t, stop())
}

func TestBothEmulatedGPUsLostEndsAtTheCPUIfItIsAllowed(t *testing.T) {
	const order = `{"model":"test/a","input":"Hello.","response_format":"pcm"}`
	for devices, status := range map[string]int{"cuda:0,cuda:1,cpu": 200, "cuda:0,cuda:1": 503} {
		s, stop := emulated(t, "0:150,1:150", "DEVICES="+devices)
		resp, body := s.post(t, "/v1/audio/speech", order)
		assert.Equal(t, 503, resp.StatusCode, "it begins again once")
		assert.Contains(t, string(body), `"device_lost"`)
		assert.Equal(t, map[string]string{"cpu": "ok", "cuda:0": "lost", "cuda:1": "lost"}, s.states(t))
		resp, body = s.post(t, "/v1/audio/speech", order)
		assert.Equal(t, status, resp.StatusCode)
		assert.Equal(t, status != 200, strings.Contains(string(body), `"device_lost"`))
		for _, probe := range []string{"/livez", "/readyz"} {
			got, _ := s.get(t, probe)
			assert.Equal(t, status, got, probe)
		}
		require.NoError(t, stop())
	}
}

func TestEmulatedGPUWithoutMemoryIsAnErrorOfTheRequest(t *testing.T) {
	s, stop := emulated(t, "", "BARKRT_EMULATED_DEVICES=2:10") // which a thread's scratch fills
	for range 2 {
		resp, body := s.post(t, "/v1/audio/speech", `{"model":"test/a","input":"Hello.","response_format":"pcm"}`)
		assert.Equal(t, 503, resp.StatusCode)
		assert.Contains(t, string(body), `"insufficient_memory"`)
	}
	assert.Equal(t, map[string]string{"cpu": "ok", "cuda:0": "ok", "cuda:1": "ok"}, s.states(t))
	require.NoError(t, stop())
}
