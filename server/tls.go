package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// certificate is what the server shows to its clients, read from two files; nil serves plain HTTP. It can be read again
// while connections come.
type certificate struct {
	files   tlsFiles
	current atomic.Pointer[tls.Certificate]
}

// tlsFiles are PEM files; "" for none.
type tlsFiles struct{ cert, key string }

// tls reads TLS_CERT and TLS_KEY.
func (s *settings) tls(cert, key string) tlsFiles {
	if (cert == "") != (key == "") {
		s.problems = append(s.problems, fmt.Sprintf("TLS_CERT=%q and TLS_KEY=%q must be set together", cert, key))
	}
	return tlsFiles{cert, key}
}

// read reads the files.
func (f tlsFiles) read() (*tls.Certificate, error) {
	if f.cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT and TLS_KEY: %w", err)
	}
	return &pair, nil
}

func openCertificate(files tlsFiles) (*certificate, error) {
	pair, err := files.read()
	if pair == nil {
		return nil, err
	}
	c := &certificate{files: files}
	c.current.Store(pair)
	return c, nil
}

// until is when the certificate ends.
func (c *certificate) until() time.Time { return c.current.Load().Leaf.NotAfter }

// listener speaks TLS on l. Without a certificate it is l.
func (c *certificate) listener(l net.Listener) net.Listener {
	if c == nil || l == nil {
		return l
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	})
}
