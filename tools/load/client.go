package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/valyala/fasthttp"
)

// request is one of those that the clients send in turn.
type request struct {
	method, path, body string
	complete           func(body []byte) bool // of an answer with status 200
}

const sentence = "The quick brown fox jumps over the lazy dog, and then it walks home in the evening sun. "

func speech(more string) string {
	return `{"model":"suno/bark-small","input":"Load.","voice":"alloy",` + more + `}`
}

func some(body []byte) bool { return len(body) > 0 }

func isWAV(body []byte) bool { return len(body) > 44 && string(body[:4]) == "RIFF" }

func endsWithDone(body []byte) bool { return bytes.Contains(body, []byte("event: speech.audio.done")) }

// requests: mostly speech, of each kind of answer; the rest as pages, clients and operators ask.
var requests = []request{
	{"POST", "/v1/audio/speech", speech(`"response_format":"wav"`), isWAV},
	{"POST", "/v1/audio/speech", speech(`"response_format":"pcm","stream_format":"audio"`), some},
	{"POST", "/v1/audio/speech", speech(`"response_format":"wav","seed":7`), isWAV},
	{"POST", "/v1/audio/speech", speech(`"response_format":"pcm","stream_format":"sse"`), endsWithDone},
	{"POST", "/v1/audio/speech", `{"model":"suno/bark-small","input":"` + strings.Repeat(sentence, 3) + `","response_format":"pcm"}`, some},
	{"POST", "/v1/audio/speech", speech(`"response_format":"mp3"`), some},
	{"GET", "/v1/models", "", some},
	{"GET", "/cache/stats", "", some},
}

// crowd is all clients, and what became of their requests.
type crowd struct {
	address string
	leaving atomic.Bool // the server has been told to end
	clients sync.WaitGroup
	size    int

	mu         sync.Mutex // guards what follows
	answers    map[string]int
	spoken     int
	unanswered []string // ids of requests on connections that closed before their answer, after SIGTERM
	unmet      int      // of them, those on new connections
	wrong      []string
}

func newCrowd(address string, size int) *crowd {
	return &crowd{address: address, size: size, answers: make(map[string]int)}
}

// rampEvery is the time between the first requests of two clients.
const rampEvery = 2 * time.Millisecond

func (c *crowd) start() {
	for i := range c.size {
		c.clients.Go(func() {
			time.Sleep(time.Duration(i) * rampEvery)
			(&client{crowd: c, number: i}).run()
		})
	}
}

func (c *crowd) wait() { c.clients.Wait() }

func (c *crowd) book(answer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[answer]++
	if strings.HasSuffix(answer, "speech 200") {
		c.spoken++
	}
}

func (c *crowd) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

func (c *crowd) lose(id string, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unanswered = append(c.unanswered, id)
	if fresh {
		c.unmet++
	}
}

func (c *crowd) report(w io.Writer, length time.Duration) {
	total := 0
	var lines []string
	for answer, n := range c.answers {
		total += n
		lines = append(lines, fmt.Sprintf("  %s\t%d", answer, n))
	}
	slices.Sort(lines)
	fmt.Fprintf(w, "%d answers, %.0f a second\n", total, float64(total)/length.Seconds())
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(lines, "\n"))
	_ = table.Flush()
	fmt.Fprintf(w, "after SIGTERM %d requests found their connection closed, %d of them a new one\n", len(c.unanswered), c.unmet)
}

// client has one connection at a time.
type client struct {
	*crowd
	number int
	conn   net.Conn
	fresh  bool // nothing has been answered on it
	in     *bufio.Reader
	out    *bufio.Writer
}

// errEnd ends a client.
var errEnd = errors.New("the server takes no more connections")

func (c *client) run() {
	defer c.hangUp()
	for n := 0; ; n++ {
		r := requests[(c.number+n)%len(requests)]
		if err := c.ask(r, fmt.Sprintf("load-%d-%d", c.number, n)); err != nil {
			return
		}
	}
}

func (c *client) ask(r request, id string) error {
	if c.conn == nil {
		if err := c.dial(); err != nil {
			return err
		}
	}
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.Header.SetMethod(r.method)
	req.SetRequestURI("http://" + c.address + r.path)
	req.Header.Set("X-Request-Id", id)
	if r.body != "" {
		req.Header.SetContentType("application/json")
		req.SetBodyString(r.body)
	}
	if err := c.exchange(req, resp); err != nil {
		c.hangUp()
		return c.broken(r, id, err)
	}
	c.fresh = false
	c.judge(r, resp)
	if resp.ConnectionClose() {
		c.hangUp()
	}
	return nil
}

func (c *client) dial() error {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		if !c.leaving.Load() {
			c.complain("connect: %v", err)
		} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
			c.complain("connect after SIGTERM: %v", err)
		}
		return errEnd
	}
	c.conn, c.fresh = conn, true
	c.in, c.out = bufio.NewReader(conn), bufio.NewWriter(conn)
	return nil
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// errSilent is a connection that ended before the first byte of an answer.
var errSilent = errors.New("closed without an answer")

func (c *client) exchange(req *fasthttp.Request, resp *fasthttp.Response) error {
	if err := req.Write(c.out); err != nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	if err := c.out.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	if _, err := c.in.Peek(1); err != nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	return resp.Read(c.in)
}

// broken books a request without an answer. Once the server ends, it may close a connection on which it has taken no
// request; whether it had is found out from its log.
func (c *client) broken(r request, id string, err error) error {
	if !c.leaving.Load() || !errors.Is(err, errSilent) {
		c.complain("%s %s: %v", r.method, r.path, err)
		return nil
	}
	c.lose(id, c.fresh)
	return nil
}

func (c *client) judge(r request, resp *fasthttp.Response) {
	status := resp.StatusCode()
	answer := fmt.Sprintf("%s %s %d", r.method, r.path, status)
	switch status {
	case fasthttp.StatusOK:
		if !r.complete(resp.Body()) {
			c.complain("%s: the %d bytes are not what was asked for", answer, len(resp.Body()))
		}
	case fasthttp.StatusTooManyRequests, fasthttp.StatusServiceUnavailable:
		var failure struct{ Error struct{ Code string } }
		seconds, err := strconv.Atoi(string(resp.Header.Peek("Retry-After")))
		if err != nil || seconds < 1 || json.Unmarshal(resp.Body(), &failure) != nil || failure.Error.Code == "" {
			c.complain("%s: not an announced refusal: Retry-After %q, %s", answer, resp.Header.Peek("Retry-After"), resp.Body())
		}
		answer += " " + failure.Error.Code
	default:
		c.complain("%s: %s", answer, resp.Body())
	}
	c.book(answer)
}
