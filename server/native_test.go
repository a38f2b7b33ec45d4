//go:build cgo

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo/native"
	"barkd/server/models/untrained"
)

func TestEmbeddedModelSynthesisesWithoutFilesOrNetwork(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1.wav"), filepath.Join(dir, "2.wav")
	for _, args := range [][]string{{"-o", first}, {"-o", second, "--threads", "1"}} {
		got := barkd(t, nil, "", append([]string{"synth", "--text", "Hello.", "--seed", "7"}, args...)...)
		require.Zero(t, got.code, got.err)
		assert.NotContains(t, got.err, "untrained")
	}
	one, err := os.ReadFile(first)
	require.NoError(t, err)
	two, err := os.ReadFile(second)
	require.NoError(t, err)
	assert.Equal(t, one, two, "the same seed makes the same audio, whatever the threads")
	assert.Zero(t, native.LiveHandles())
}

func TestGreedyRunIsRepeatableAndItsVoiceCanBeSaved(t *testing.T) {
	dir := t.TempDir()
	model := filepath.Join(dir, "m.gguf")
	file, err := os.Create(model)
	require.NoError(t, err)
	require.NoError(t, untrained.Write(file, 5))
	require.NoError(t, file.Close())
	voice := filepath.Join(dir, "v.npz")
	for range 2 {
		got := barkd(t, nil, "", "synth", "--model", model, "--text", "Hello.", "--greedy", "--rules", "hf", "--kv", "f32", "--max-tokens", "60",
			"-o", filepath.Join(dir, "o.wav"), "--save-voice", voice)
		require.Zero(t, got.code, got.err)
	}
	got := barkd(t, nil, "", "synth", "--model", model, "--text", "Hello.", "--voice", voice, "--max-tokens", "60", "-o", filepath.Join(dir, "o.wav"))
	assert.Zero(t, got.code, got.err)
	assert.Zero(t, native.LiveHandles())
}

func TestServeAnnouncesAnUntrainedModelEverywhere(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "me"), 0o700))
	file, err := os.Create(filepath.Join(dir, "me", "noise.gguf"))
	require.NoError(t, err)
	require.NoError(t, untrained.Write(file, 5))
	require.NoError(t, file.Close())
	s := startServer(t, map[string]string{"BARKD_MODELS": dir, "WARMUP_MODELS": "barkd/tiny"})
	for model, header := range map[string]string{"me/noise": "true", "barkd/tiny": ""} {
		resp, body := s.post(t, "/v1/audio/speech", `{"model":"`+model+`","input":"Hello.","max_tokens":50,"seed":1,"response_format":"wav"}`)
		require.Equal(t, 200, resp.StatusCode, "%s", body)
		assert.Equal(t, header, resp.Header.Get("X-Barkd-Untrained"), model)
		assert.Equal(t, "RIFF", string(body[:4]))
	}
	models, err := http.Get(s.url + "/v1/models")
	require.NoError(t, err)
	var list struct {
		Data []struct {
			ID      string
			Trained bool
		}
	}
	require.NoError(t, json.NewDecoder(models.Body).Decode(&list))
	require.NoError(t, models.Body.Close())
	trained := map[string]bool{}
	for _, m := range list.Data {
		trained[m.ID] = m.Trained
	}
	assert.Equal(t, map[string]bool{"barkd/tiny": true, "me/noise": false}, trained)
	require.Zero(t, s.stop())
	assert.Zero(t, native.LiveHandles())
}

func TestDefaultModelHasAVoiceForEveryOpenAIName(t *testing.T) {
	s := startServer(t, nil)
	resp, err := http.Get(s.url + "/v1/audio/voices")
	require.NoError(t, err)
	var got struct {
		Default string
		Aliases map[string]string
		Voices  []string
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, []string{"rms", "slt"}, got.Voices)
	assert.Equal(t, "slt", got.Default)
	assert.Len(t, got.Aliases, 13)
	assert.Equal(t, "rms", got.Aliases["onyx"])
	require.Zero(t, s.stop())
}

func TestServeFindsModelsOfTheStoreAndRefusesPathsFromRequests(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "me"), 0o700))
	path := filepath.Join(dir, "me", "mine.gguf")
	file, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, untrained.Write(file, 5))
	require.NoError(t, file.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "me", "broken.gguf"), []byte("GGUF"), 0o600))
	s := startServer(t, map[string]string{"BARKD_MODELS": dir, "CACHE_WARMUP_ENABLED": "false"})
	speak := func(model string) (int, string) {
		body, err := json.Marshal(map[string]any{"model": model, "input": "Hello.", "max_tokens": 20})
		require.NoError(t, err)
		resp, answer := s.post(t, "/v1/audio/speech", string(body))
		return resp.StatusCode, string(answer)
	}
	status, _ := speak("me/mine")
	assert.Equal(t, 200, status)
	for _, id := range []string{path, "../me/mine", "me/mine.gguf", "me/../me/mine", "me\x00mine"} {
		status, answer := speak(id)
		assert.Equal(t, 404, status, answer)
		assert.NotContains(t, answer, filepath.Dir(dir)+"/x")
	}
	status, answer := speak("me/broken")
	assert.Equal(t, 500, status)
	assert.Contains(t, answer, "model_invalid")
	assert.False(t, strings.Contains(answer, dir), "no path of the machine in the answer")
}

// Requests that speak at one time share the model's decode steps: each gets the bytes that it gets alone, whatever the
// others are and while some of their clients leave.
func TestRequestsSideBySideGetWhatTheyGetAlone(t *testing.T) {
	const requests = 20
	s := startServer(t, map[string]string{"MAX_CONCURRENT_REQUESTS": strconv.Itoa(requests), "CACHE_WARMUP_ENABLED": "false"})
	var bodies []string
	for i := range requests {
		bodies = append(bodies, fmt.Sprintf(`{"model":"barkd/tiny","input":%q,"voice":%q,"seed":%d,"max_tokens":%d,"response_format":"wav"}`,
			[]string{"Hello.", "The sun is up.", "What is the name of this house?"}[i%3], []string{"slt", "rms"}[i%2], i, 20+5*i))
	}
	speak := func(ctx context.Context, body string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/audio/speech", strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%d: %s", resp.StatusCode, answer)
		}
		return answer, err
	}
	var alone [][]byte
	for _, body := range bodies {
		answer, err := speak(t.Context(), body)
		require.NoError(t, err)
		alone = append(alone, answer)
	}
	var clients sync.WaitGroup
	for i, body := range bodies {
		clients.Go(func() {
			if i%4 == 3 { // leaves, mostly before the answer is whole
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Millisecond)
				defer cancel()
				_, _ = speak(ctx, body)
			}
			answer, err := speak(t.Context(), body)
			assert.NoError(t, err, "request %d", i)
			assert.True(t, bytes.Equal(alone[i], answer), "request %d: %d bytes, alone %d", i, len(answer), len(alone[i]))
		})
	}
	clients.Wait()
	require.Zero(t, s.stop())
	assert.Zero(t, native.LiveHandles())
}
