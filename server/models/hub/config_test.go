package hub

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func env(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestEnvironmentIsReadAsHuggingFaceDoes(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("hf_file\n"), 0o600))
	for name, c := range map[string]struct {
		env  []string
		want Config
	}{
		"defaults":        {[]string{"HOME", "/h"}, Config{Endpoint: DefaultEndpoint, CacheDir: "/h/.cache/huggingface/hub"}},
		"xdg":             {[]string{"HOME", "/h", "XDG_CACHE_HOME", "/x"}, Config{Endpoint: DefaultEndpoint, CacheDir: "/x/huggingface/hub"}},
		"home and token":  {[]string{"HF_HOME", dir}, Config{Endpoint: DefaultEndpoint, CacheDir: dir + "/hub", Token: "hf_file"}},
		"variables":       {[]string{"HOME", "/h", "D", "data", "HF_HOME", "~/$D"}, Config{Endpoint: DefaultEndpoint, CacheDir: "/h/data/hub"}},
		"old cache name":  {[]string{"HUGGINGFACE_HUB_CACHE", "/old"}, Config{Endpoint: DefaultEndpoint, CacheDir: "/old"}},
		"new cache name":  {[]string{"HUGGINGFACE_HUB_CACHE", "/old", "HF_HUB_CACHE", "/new"}, Config{Endpoint: DefaultEndpoint, CacheDir: "/new"}},
		"token wins":      {[]string{"HF_HOME", dir, "HF_TOKEN", " hf_env\n"}, Config{Endpoint: DefaultEndpoint, CacheDir: dir + "/hub", Token: "hf_env"}},
		"token path":      {[]string{"HF_HUB_CACHE", "/c", "HF_TOKEN_PATH", token}, Config{Endpoint: DefaultEndpoint, CacheDir: "/c", Token: "hf_file"}},
		"no implicit":     {[]string{"HF_HOME", dir, "HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"}, Config{Endpoint: DefaultEndpoint, CacheDir: dir + "/hub"}},
		"mirror, offline": {[]string{"HF_HUB_CACHE", "/c", "HF_ENDPOINT", "http://mirror:8080/hf/", "HF_HUB_OFFLINE", "yes"}, Config{Endpoint: "http://mirror:8080/hf", CacheDir: "/c", Offline: true}},
		"offline, other":  {[]string{"HF_HUB_CACHE", "/c", "TRANSFORMERS_OFFLINE", "1"}, Config{Endpoint: DefaultEndpoint, CacheDir: "/c", Offline: true}},
		"offline, off":    {[]string{"HF_HUB_CACHE", "/c", "HF_HUB_OFFLINE", "0", "TRANSFORMERS_OFFLINE", "1"}, Config{Endpoint: DefaultEndpoint, CacheDir: "/c"}},
		"no bars":         {[]string{"HF_HUB_CACHE", "/c", "HF_HUB_DISABLE_PROGRESS_BARS", "1"}, Config{Endpoint: DefaultEndpoint, CacheDir: "/c", DisableProgressBars: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ConfigFromEnv(env(c.env...))
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestEnvironmentThatCannotBeIsAnError(t *testing.T) {
	for _, endpoint := range []string{"huggingface.co", "ftp://x", "https://", "::"} {
		_, err := ConfigFromEnv(env("HOME", "/h", "HF_ENDPOINT", endpoint))
		assert.ErrorContains(t, err, "HF_ENDPOINT")
	}
	_, err := ConfigFromEnv(env())
	assert.ErrorContains(t, err, "HF_HUB_CACHE")
	_, err = ConfigFromEnv(env("HOME", "/h", "HF_TOKEN", "hf_a\nX-Evil: 1"))
	require.ErrorContains(t, err, "HF_TOKEN")
	assert.NotContains(t, err.Error(), "hf_a", "a token is no part of a message")
	_, err = ConfigFromEnv(env("HOME", "/h", "HF_TOKEN_PATH", t.TempDir()))
	assert.ErrorContains(t, err, "read the hub token")
}
