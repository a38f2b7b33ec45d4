package main

import (
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func portOf(t *testing.T, url string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	return port
}

func TestHealthAsksTheServerOfTheSameSettings(t *testing.T) {
	dir := t.TempDir()
	files := tlsFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	writeCertificate(t, files, 1)
	for name, env := range map[string]map[string]string{
		"HTTP":  {},
		"HTTPS": {"TLS_CERT": files.cert, "TLS_KEY": files.key},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, quick(env))
			mine := maps.Clone(env)
			mine["HOST"] = "127.0.0.1"
			config := filepath.Join(t.TempDir(), "barkd.yaml") // with settings that are not of this command, too
			require.NoError(t, os.WriteFile(config, []byte("max_cached_models: 2\nport: "+portOf(t, s.url)+"\n"), 0o600))
			mine["BARKD_CONFIG"] = config
			got := barkd(t, mine, "", "health")
			assert.Zero(t, got.code, got.err)
			assert.JSONEq(t, `{"status":"ok"}`, got.out)

			require.Zero(t, s.stop())
			got = barkd(t, mine, "", "health")
			assert.Equal(t, 1, got.code)
			assert.Contains(t, got.err, "connection refused")
		})
	}
}

func TestHealthFailsForAnyOtherAnswer(t *testing.T) {
	asked := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"status":"warming_up"}`))
	}))
	defer s.Close()
	got := barkd(t, nil, "", "health", "--host", "127.0.0.1", "--port", portOf(t, s.URL), "--ready")
	assert.Equal(t, 1, got.code)
	assert.Equal(t, "/readyz", asked)
	assert.Contains(t, got.err, `503 Service Unavailable: {"status":"warming_up"}`)
	assert.Equal(t, 2, barkd(t, nil, "", "health", "--port", "0").code, "which a server would have picked")
}
