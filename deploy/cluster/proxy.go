package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Proxy is HAProxy in front of servers.
type Proxy struct {
	URL     string
	folder  string // of its socket
	process *exec.Cmd
	log     bytes.Buffer // complete when the process has ended
}

// StartProxy runs HAProxy with a configuration that takes its addresses from the environment as the shipped one does.
// Its port is a listener that it inherits. The caller must Close it.
func StartProxy(config string, servers []*Server) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	inherited, err := listener.(*net.TCPListener).File()
	if err = errors.Join(err, listener.Close()); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "barkd-haproxy-")
	if err != nil {
		return nil, err
	}
	p := &Proxy{URL: "http://" + listener.Addr().String(), folder: folder, process: exec.Command("haproxy", "-db", "-f", config)}
	p.process.ExtraFiles = []*os.File{inherited}
	p.process.Stderr = &p.log
	p.process.Env = append(os.Environ(), "BARKD_BIND=fd@3", "BARKD_SOCKET="+p.socket())
	for i, server := range servers {
		_, port, err := splitAddress(server.Agent)
		if err != nil {
			return nil, err
		}
		p.process.Env = append(p.process.Env, fmt.Sprintf("BARKD_%d=%s", i+1, server.Address), fmt.Sprintf("BARKD_AGENT_%d=%s", i+1, port))
	}
	err = p.process.Start()
	return p, errors.Join(err, inherited.Close())
}

// Close ends HAProxy and returns what it has said.
func (p *Proxy) Close() string {
	_ = p.process.Process.Kill()
	_ = p.process.Wait() // it says "killed"
	_ = os.RemoveAll(p.folder)
	return p.log.String()
}

func (p *Proxy) socket() string { return filepath.Join(p.folder, "admin.sock") }

// States are what HAProxy thinks of each server of a backend: UP, DOWN, DRAIN and so on.
func (p *Proxy) States(backend string) ([]string, error) {
	conn, err := net.Dial("unix", p.socket())
	if err != nil {
		return nil, err
	}
	_, err = conn.Write([]byte("show stat\n"))
	table, readErr := io.ReadAll(conn)
	if err = errors.Join(err, readErr, conn.Close()); err != nil {
		return nil, err
	}
	const status = 17 // the column
	var out []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Split(line, ","); len(fields) > status && fields[0] == backend && fields[1] != "BACKEND" {
			out = append(out, strings.Fields(fields[status])[0])
		}
	}
	return out, nil
}
