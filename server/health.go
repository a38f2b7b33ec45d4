package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// healthTimeout is how long a server may take to say that it is alive.
const healthTimeout = 5 * time.Second

// healthCommand is `barkd health`: what a container's health check runs.
type healthCommand struct {
	Host    string `var:"HOST" placeholder:"ADDR" help:"Address of the server; default is this machine."`
	Port    string `var:"PORT" default:"8000" placeholder:"8000" help:"Its port."`
	TLSCert string `name:"tls-cert" var:"TLS_CERT" placeholder:"FILE" help:"Set where it serves HTTPS; the certificate is not verified."`
	Ready   bool   `help:"Ask whether requests should be sent to it (/readyz), not whether it is alive (/livez)."`
}

// Run asks the server; it fails for every answer but 200.
func (c *healthCommand) Run(ctx context.Context, out stdio) error {
	s := settings{}
	port := s.integer("PORT", c.Port, 1, 65535)
	if err := s.err(); err != nil {
		return err
	}
	host := strings.Trim(c.Host, "[]")
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	scheme, path := "http", "/livez"
	if c.TLSCert != "" {
		scheme = "https"
	}
	if c.Ready {
		path = "/readyz"
	}
	url := scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port)) + path
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // nothing secret is sent, and the name is none of the certificate's
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", url, answer.Status, body)
	}
	_, err = fmt.Fprintf(out.out, "%s\n", body)
	return err
}
