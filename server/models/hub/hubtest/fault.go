package hubtest

import (
	"bytes"
	"fmt"
	"net/http"
)

// Fault is what goes wrong with one request.
type Fault struct {
	// Code, if not 0, is answered instead of anything else, with Header.
	Code   int
	Header map[string]string
	// Cut, if not 0, ends the body after so many bytes: the connection breaks, or with Stall it stays open and silent
	// until the client gives up. A negative number cuts before the first byte.
	Cut   int
	Stall bool
	// Flip changes a byte in the middle. IgnoreRange answers with the whole file. WrongRange answers with the start
	// of the file as if that had been asked for. Longer sends a byte too many.
	Flip, IgnoreRange, WrongRange, Longer bool
}

// Fault makes the next requests go wrong, one fault each; Fault{} is a request that goes well. what is a file for the
// requests of its content, "HEAD FILE" for those of its headers, "" for the list of files.
func (s *Server) Fault(what string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[what] = append(s.faults[what], faults...)
}

// status answers with the fault's code, if it has one.
func (f Fault) status(w http.ResponseWriter) bool {
	if f.Code == 0 {
		return false
	}
	for k, v := range f.Header {
		w.Header().Set(k, v)
	}
	http.Error(w, http.StatusText(f.Code), f.Code)
	return true
}

// serve sends data as asked, but for the fault.
func (f Fault) serve(w http.ResponseWriter, r *http.Request, data []byte) {
	if f.Flip && len(data) > 0 {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
	}
	if f.IgnoreRange {
		r.Header.Del("Range")
	}
	if f.Cut != 0 {
		w = &cutWriter{ResponseWriter: w, r: r, left: max(0, f.Cut), stall: f.Stall}
	}
	switch {
	case f.WrongRange:
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(data)-1, len(data)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(data)
	case f.Longer: // chunked, so that no length warns
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(append(bytes.Clone(data), 0))
	default:
		serveContent(w, r, data)
	}
}

// cutWriter lets some bytes of the body through.
type cutWriter struct {
	http.ResponseWriter
	r     *http.Request
	left  int
	stall bool
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	if c.stall {
		<-c.r.Context().Done()
	}
	panic(http.ErrAbortHandler) // the server's way to break a connection
}
