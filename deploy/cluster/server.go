// Package cluster runs several barkd processes on the simulated runtime, and loads them, for the tests of what stands
// in front of them.
package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// startPatience bounds the wait for a server's first word.
const startPatience = 30 * time.Second

// Server is one `barkd serve` on the simulated runtime. Its methods are for one goroutine at a time.
type Server struct {
	Address string // host:port, the same after a restart
	Agent   string // of the port for HAProxy
	binary  string
	env     []string
	process *exec.Cmd
	log     sync.WaitGroup // reads the process's log
}

// Start runs the binary with the given settings, NAME=VALUE, beside those that every simulated server has. The caller
// must Stop or Kill it.
func Start(binary string, settings ...string) (*Server, error) {
	s := &Server{Address: "127.0.0.1:0", Agent: "127.0.0.1:0", binary: binary}
	s.env = append(os.Environ(), "BARKD_BACKEND=mock", "CACHE_WARMUP_ENABLED=false", "CACHE_STATE=off", "VOICES_DIR=off", "MEMORY_THRESHOLD_GB=0",
		"LOG_FORMAT=json", "LOG_LEVEL=info", "CACHE_BUDGET=1TB")
	s.env = append(s.env, settings...)
	return s, s.Restart()
}

// Restart starts a server that has ended, at the addresses that it had.
func (s *Server) Restart() error {
	host, port, err := splitAddress(s.Address)
	if err != nil {
		return err
	}
	s.process = exec.Command(s.binary, "serve")
	s.process.Env = append(s.env, "HOST="+host, "PORT="+port, "AGENT_ADDR="+s.Agent)
	stderr, err := s.process.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("start a server: %w", err)
	}
	serving := make(chan serving, 1)
	s.log.Go(func() { readLog(stderr, serving) })
	select {
	case at, ok := <-serving:
		if !ok {
			return fmt.Errorf("a server does not start: %w", s.wait())
		}
		s.Address, s.Agent = at.Address, at.Agent
		return nil
	case <-time.After(startPatience):
		return errors.Join(errors.New("a server does not start"), s.Kill())
	}
}

// serving is the line of the log that says where.
type serving struct{ Message, Address, Agent string }

// readLog reads a log to its end, so that the process is never held up by it.
func readLog(log io.Reader, to chan<- serving) {
	defer close(to)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line serving
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "serving" {
			to <- line
		}
		if os.Getenv("BARKD_CLUSTER_LOG") != "" {
			fmt.Fprintln(os.Stderr, lines.Text())
		}
	}
}

// Kill ends the server as a crash does.
func (s *Server) Kill() error {
	if err := s.process.Process.Kill(); err != nil {
		return err
	}
	_ = s.wait() // it says "killed"
	return nil
}

// Stop ends the server as an operator does; it returns when the process has ended, with an error if it failed.
func (s *Server) Stop() error {
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.wait()
}

func (s *Server) wait() error {
	s.log.Wait()
	return s.process.Wait()
}

// Metrics reads the server's metrics, by name.
func (s *Server) Metrics() (map[string]*dto.MetricFamily, error) {
	answer, err := http.Get("http://" + s.Address + "/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	return families, errors.Join(err, answer.Body.Close())
}

// Requests counts the requests for models so far, by model and outcome.
func (s *Server) Requests() (map[string]map[string]int, error) {
	families, err := s.Metrics()
	if err != nil {
		return nil, err
	}
	out := make(map[string]map[string]int)
	for _, m := range families["bark_cache_requests_total"].GetMetric() {
		labels := make(map[string]string)
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if out[labels["model"]] == nil {
			out[labels["model"]] = make(map[string]int)
		}
		out[labels["model"]][labels["outcome"]] += int(m.GetCounter().GetValue())
	}
	return out, nil
}
