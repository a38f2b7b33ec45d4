// Package hub downloads what a Bark model needs from a Hugging Face compatible hub, into the cache
// that other Hugging Face programs share: nothing is fetched twice, whoever fetched it first.
package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultEndpoint is the hub that HF_ENDPOINT replaces.
const DefaultEndpoint = "https://huggingface.co"

// Config says which hub, as whom, and where its files are kept.
type Config struct {
	Endpoint            string // without a trailing slash
	Token               string // empty for none; never part of a message
	CacheDir            string // holds models--ORG--NAME
	Offline             bool   // use what the cache has
	DisableProgressBars bool   // for the caller that draws them
}

// ConfigFromEnv reads the environment as Hugging Face's own programs do: HF_ENDPOINT, HF_TOKEN (or the file
// HF_TOKEN_PATH, $HF_HOME/token), HF_HUB_CACHE (or HUGGINGFACE_HUB_CACHE, $HF_HOME/hub), HF_HUB_OFFLINE,
// HF_HUB_DISABLE_PROGRESS_BARS. Proxies (HTTPS_PROXY) are the HTTP transport's concern.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	cfg := Config{
		Endpoint:            strings.TrimRight(firstOf(getenv("HF_ENDPOINT"), DefaultEndpoint), "/"),
		Offline:             isTrue(firstOf(getenv("HF_HUB_OFFLINE"), getenv("TRANSFORMERS_OFFLINE"))),
		DisableProgressBars: isTrue(getenv("HF_HUB_DISABLE_PROGRESS_BARS")),
	}
	if u, err := url.Parse(cfg.Endpoint); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return Config{}, fmt.Errorf("HF_ENDPOINT is %q, which is not a web address such as %s", cfg.Endpoint, DefaultEndpoint)
	}
	expand := func(path string) string {
		path = os.Expand(path, getenv)
		if path == "~" || strings.HasPrefix(path, "~/") {
			path = getenv("HOME") + path[1:]
		}
		return path
	}
	caches := getenv("XDG_CACHE_HOME")
	if caches == "" && getenv("HOME") != "" {
		caches = filepath.Join(getenv("HOME"), ".cache")
	}
	home := expand(getenv("HF_HOME"))
	if home == "" && caches != "" {
		home = filepath.Join(caches, "huggingface")
	}
	inHome := func(name string) string {
		if home == "" {
			return ""
		}
		return filepath.Join(home, name)
	}
	cfg.CacheDir = firstOf(expand(getenv("HF_HUB_CACHE")), expand(getenv("HUGGINGFACE_HUB_CACHE")), inHome("hub"))
	if cfg.CacheDir == "" {
		return Config{}, errors.New("no place for downloads: set HF_HUB_CACHE, HF_HOME or HOME")
	}
	var err error
	cfg.Token, err = token(getenv, firstOf(expand(getenv("HF_TOKEN_PATH")), inHome("token")))
	return cfg, err
}

// token returns HF_TOKEN, else the content of the token file, which may be absent.
func token(getenv func(string) string, path string) (string, error) {
	where := "HF_TOKEN"
	t := strings.TrimSpace(firstOf(getenv("HF_TOKEN"), getenv("HUGGING_FACE_HUB_TOKEN")))
	if t == "" && path != "" && !isTrue(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read the hub token: %w", err)
		}
		where, t = path, strings.TrimSpace(string(b))
	}
	// It becomes a header: a line break would end it, and the error of the HTTP library would print it.
	if strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("the token in %s has spaces or characters that no token has", where)
	}
	return t, nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func isTrue(value string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(value))
}
