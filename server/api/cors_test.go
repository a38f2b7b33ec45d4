package api_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

func TestPagesOfOtherOriginsAreShutOutUnlessTheirsIsListed(t *testing.T) {
	const allow = "Access-Control-Allow-Origin"
	none := newSite(t)
	assert.Empty(t, none.do(t, "GET", "/health", "", "Origin", "https://example.com").header.Get(allow))
	assert.Equal(t, 405, none.do(t, "OPTIONS", "/v1/audio/speech", "", "Origin", "https://example.com", "Access-Control-Request-Method", "POST").status)

	s := openSite(t, settings{origins: []string{"https://example.com", "http://localhost:3000"}, rules: keyed("sesame")})
	preflight := s.do(t, "OPTIONS", "/v1/audio/speech", "", "Origin", "https://example.com", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization,content-type,x-stainless-os")
	assert.Equal(t, 204, preflight.status, "without a key: browsers send none")
	assert.Equal(t, "https://example.com", preflight.header.Get(allow))
	assert.Contains(t, preflight.header.Get("Access-Control-Allow-Headers"), "x-stainless-os")
	assert.Contains(t, preflight.header.Get("Access-Control-Allow-Methods"), "POST")
	assert.Empty(t, preflight.header.Get("Access-Control-Allow-Credentials"))

	refused := s.do(t, "POST", "/v1/audio/speech", hello, "Origin", "http://localhost:3000")
	assert.Equal(t, 401, refused.status)
	assert.Equal(t, "http://localhost:3000", refused.header.Get(allow), "a page can read why")
	spoken := s.do(t, "POST", "/v1/audio/speech", hello, "Origin", "http://localhost:3000", "x-api-key", "sesame")
	assert.Equal(t, 200, spoken.status)
	assert.Equal(t, "*", spoken.header.Get("Access-Control-Expose-Headers"))

	other := s.do(t, "GET", "/health", "", "Origin", "https://example.com.evil.org")
	assert.Empty(t, other.header.Get(allow))
	assert.Contains(t, other.header.Get("Vary"), "Origin")
	all := openSite(t, settings{origins: []string{"*"}})
	assert.Equal(t, "*", all.do(t, "GET", "/health", "", "Origin", "https://anybody.org").header.Get(allow))
}

func TestClientThatLeavesIsNoticedThroughTLS(t *testing.T) {
	lender := httptest.NewTLSServer(nil) // has a certificate and a client that trusts it
	defer lender.Close()
	s := newSite(t)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		s.served <- s.Serve(tls.NewListener(plain, &tls.Config{Certificates: lender.TLS.Certificates}))
	}()
	begun, ended := make(chan struct{}), make(chan error, 1)
	s.model.Work = func(ctx context.Context, _ cgo.Request) error {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	conn, err := tls.Dial("tcp", plain.Addr().String(), &tls.Config{InsecureSkipVerify: true}) // whose it is is no matter here
	require.NoError(t, err)
	_, err = fmt.Fprintf(conn, "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(hello), hello)
	require.NoError(t, err)
	<-begun
	require.NoError(t, conn.Close())
	assert.ErrorIs(t, <-ended, context.Canceled)
	require.NoError(t, s.Shutdown(context.Background()))
	for range 2 {
		require.NoError(t, <-s.served)
	}
	s.served = nil
}
