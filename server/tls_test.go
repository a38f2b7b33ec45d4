package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// writeCertificate writes a certificate of 127.0.0.1 that signs itself, and its key.
func writeCertificate(t *testing.T, files tlsFiles, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(files.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	made, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return made
}

// serial makes an HTTPS request that trusts the certificate, and returns the serial number it was shown.
func serial(t *testing.T, url string, trusted *x509.Certificate) int64 {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(trusted)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(strings.Replace(url, "http://", "https://", 1) + "/health")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, 1, resp.ProtoMajor)
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
}

func TestHTTPSWithACertificateThatIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	files := tlsFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	first := writeCertificate(t, files, 1)
	s := startServer(t, quick(map[string]string{"TLS_CERT": files.cert, "TLS_KEY": files.key, "ADMIN_ADDR": "127.0.0.1:0"}))
	assert.EqualValues(t, 1, serial(t, s.url, first))
	assert.Contains(t, s.log.String(), "certificate_until")
	resp, err := http.Get(s.url + "/health")
	if err == nil { // plain HTTP gets no answer of the server
		assert.Equal(t, 400, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
	}

	second := writeCertificate(t, files, 2)
	s.hup(t, "settings reloaded")
	assert.EqualValues(t, 2, serial(t, s.url, second))

	require.NoError(t, os.WriteFile(files.key, []byte("no key"), 0o600))
	s.hup(t, "settings not reloaded")
	assert.EqualValues(t, 2, serial(t, s.url, second))
}

func TestCertificateThatCannotServeIsRefusedAtTheStart(t *testing.T) {
	got := barkd(t, quick(map[string]string{"TLS_CERT": "cert.pem", "CORS_ORIGINS": "example.com"}), "", "serve")
	assert.Equal(t, exitUsage, got.code)
	assert.Contains(t, got.err, `TLS_KEY="" must be set together`)
	assert.Contains(t, got.err, `CORS_ORIGINS="example.com" must be`)
	got = barkd(t, quick(map[string]string{"TLS_CERT": "/none.pem", "TLS_KEY": "/none.pem"}), "", "serve")
	assert.Equal(t, exitFailed, got.code)
	assert.Contains(t, got.err, "TLS_CERT and TLS_KEY: open /none.pem")
}

func TestOriginsAreOriginsAndNothingElse(t *testing.T) {
	for _, good := range []string{"", "*", "https://example.com, http://localhost:3000"} {
		var s settings
		s.origins("CORS_ORIGINS", good)
		assert.Empty(t, s.problems, good)
	}
	for _, bad := range []string{"*, https://a.b", "https://a.b/", "https://a.b/c", "ftp://a.b", "a.b", "https://", "https://u:p@a.b", "null"} {
		var s settings
		s.origins("CORS_ORIGINS", bad)
		assert.Len(t, s.problems, 1, bad)
	}
}
