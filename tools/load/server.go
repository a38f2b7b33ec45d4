package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// serverSettings apply where the environment says nothing else.
var serverSettings = []string{
	"BARKD_BACKEND=mock", "MOCK_TIME_SCALE=0.02", "HOST=127.0.0.1", "PORT=0", "WARMUP_MODELS=suno/bark-small", "CACHE_STATE=off",
	"MAX_CONCURRENT_REQUESTS=32", "MAX_QUEUED_REQUESTS=256", "LOG_FORMAT=json", "LOG_LEVEL=info",
}

// server is a running `barkd serve`.
type server struct {
	url, address string
	process      *exec.Cmd
	reading      sync.WaitGroup

	mu      sync.Mutex // guards what follows
	leaving bool
	late    bytes.Buffer // the log from SIGTERM on
	failed  []string     // lines of level error
}

func startServer(program string) (*server, error) {
	s := &server{process: exec.Command(program, "serve")}
	for _, setting := range serverSettings {
		if name, _, _ := strings.Cut(setting, "="); os.Getenv(name) == "" {
			s.process.Env = append(s.process.Env, setting)
		}
	}
	s.process.Env = append(s.process.Env, os.Environ()...)
	log, err := s.process.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReaderSize(log, 1<<20)
	if err := s.awaitAddress(lines); err != nil {
		s.kill()
		return nil, err
	}
	s.reading.Go(func() { s.follow(lines) })
	return s, nil
}

// awaitAddress reads the log until it says where the server listens.
func (s *server) awaitAddress(lines *bufio.Reader) error {
	var seen strings.Builder
	for {
		text, err := lines.ReadString('\n')
		seen.WriteString(text)
		if err != nil {
			return fmt.Errorf("the server does not start: %s", strings.TrimSpace(seen.String()))
		}
		var line struct{ Message, Address string }
		if json.Unmarshal([]byte(text), &line) == nil && line.Message == "serving" {
			s.address, s.url = line.Address, "http://"+line.Address
			return nil
		}
	}
}

// follow keeps of the log what the verdict needs. Reading all of it costs little beside writing it.
func (s *server) follow(lines *bufio.Reader) {
	for {
		line, err := lines.ReadSlice('\n')
		s.mu.Lock()
		if s.leaving {
			s.late.Write(line)
		}
		if bytes.HasPrefix(line, []byte(`{"level":"error"`)) || bytes.HasPrefix(line, []byte(`{"level":"panic"`)) {
			s.failed = append(s.failed, string(bytes.TrimSpace(line)))
		}
		s.mu.Unlock()
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (s *server) terminate() {
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	_ = s.process.Process.Signal(syscall.SIGTERM) // wait tells if it had ended
}

// wait returns the exit code.
func (s *server) wait() (int, error) {
	ctx, cancel := patience()
	defer cancel()
	done := make(chan struct{})
	go func() {
		s.reading.Wait()
		_ = s.process.Wait() // its state tells
		close(done)
	}()
	select {
	case <-done:
		return s.process.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("the server has not ended %v after SIGTERM", startPatience)
	}
}

func (s *server) kill() { _ = s.process.Process.Kill() }

func (s *server) peakMB() int64 {
	usage, ok := s.process.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return usage.Maxrss >> 10
}

// logged returns the line of a request that was answered after SIGTERM, "" if there is none.
func (s *server) logged(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := bytes.Index(s.late.Bytes(), []byte(`"request_id":"`+id+`"`))
	if at < 0 {
		return ""
	}
	from := bytes.LastIndexByte(s.late.Bytes()[:at], '\n') + 1
	line, _ := bufio.NewReader(bytes.NewReader(s.late.Bytes()[from:])).ReadString('\n')
	return strings.TrimSpace(line)
}

func (s *server) errors() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
