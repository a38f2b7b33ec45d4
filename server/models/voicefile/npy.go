package voicefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Bounds of one array. The longest real preset has 8 × 1154 codes and a header of 118 bytes.
const (
	maxElements    = 1 << 20
	maxHeaderBytes = 1 << 16
)

// Array is an integer array, row-major, of rank 1 or 2.
type Array struct {
	Shape  []int
	Values []int32
}

// ReadNPY reads one array in NumPy's format, version 1 to 3: little-endian integers of any width, either memory order.
// Objects, floats and values beyond 32 bits are errors; so are bytes after the array.
func ReadNPY(r io.Reader) (Array, error) {
	h, err := readHeader(r)
	if err != nil {
		return Array{}, fmt.Errorf("npy: %w", err)
	}
	n := 1
	for _, d := range h.shape {
		n *= d // at most maxElements each, and of rank 2
		if n > maxElements {
			return Array{}, fmt.Errorf("npy: shape %v, limit %d elements", h.shape, maxElements)
		}
	}
	raw, err := io.ReadAll(io.LimitReader(r, int64(n*h.size)+1))
	if err != nil {
		return Array{}, fmt.Errorf("npy: %w", err)
	}
	if len(raw) != n*h.size {
		return Array{}, fmt.Errorf("npy: shape %v of %s needs %d bytes, the file has %s", h.shape, h.descr, n*h.size,
			map[bool]string{true: "fewer", false: "more"}[len(raw) < n*h.size])
	}
	a := Array{Shape: h.shape, Values: make([]int32, n)}
	for i := range n {
		v, err := h.value(raw[i*h.size:])
		if err != nil {
			return Array{}, fmt.Errorf("npy: %w", err)
		}
		at := i
		if h.fortran && len(h.shape) == 2 { // stored column by column
			at = i%h.shape[0]*h.shape[1] + i/h.shape[0]
		}
		a.Values[at] = v
	}
	return a, nil
}

type header struct {
	descr   string
	size    int // bytes of an element
	signed  bool
	fortran bool
	shape   []int
}

func (h *header) value(b []byte) (int32, error) {
	var u uint64
	for i := range h.size {
		u |= uint64(b[i]) << (8 * i)
	}
	if h.signed {
		shift := 64 - 8*h.size
		v := int64(u<<shift) >> shift
		if v < math.MinInt32 || v > math.MaxInt32 {
			return 0, fmt.Errorf("value %d is no token", v)
		}
		return int32(v), nil
	}
	if u > math.MaxInt32 {
		return 0, fmt.Errorf("value %d is no token", u)
	}
	return int32(u), nil
}

func readHeader(r io.Reader) (*header, error) {
	var start [8]byte
	if _, err := io.ReadFull(r, start[:]); err != nil || string(start[:6]) != "\x93NUMPY" {
		return nil, errors.New("not a NumPy file")
	}
	if start[6] < 1 || start[6] > 3 {
		return nil, fmt.Errorf("format version %d is unknown", start[6])
	}
	wide := make([]byte, 4)
	length := wide
	if start[6] == 1 {
		length = wide[:2]
	}
	if _, err := io.ReadFull(r, length); err != nil {
		return nil, errors.New("header is cut off")
	}
	n := binary.LittleEndian.Uint32(wide)
	if n > maxHeaderBytes {
		return nil, fmt.Errorf("header of %d bytes, limit %d", n, maxHeaderBytes)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, errors.New("header is cut off")
	}
	return parseHeader(string(text))
}

// parseHeader reads the Python dict literal of the header, of which NumPy allows exactly three keys.
func parseHeader(text string) (*header, error) {
	p := &literal{text: text}
	h := &header{}
	seen := make(map[string]bool)
	p.expect('{')
	for p.err == nil && !p.accept('}') {
		key := p.str()
		p.expect(':')
		if seen[key] {
			p.fail()
		}
		seen[key] = true
		switch key {
		case "descr":
			h.descr = p.str()
		case "fortran_order":
			h.fortran = p.boolean()
		case "shape":
			h.shape = p.shape()
		default:
			p.fail()
		}
		if !p.accept(',') {
			p.expect('}')
			break
		}
	}
	if p.err == nil && strings.TrimSpace(p.text) != "" {
		p.fail()
	}
	if p.err != nil {
		return nil, p.err
	}
	if len(seen) != 3 {
		return nil, errors.New("header lacks descr, fortran_order or shape")
	}
	return h, h.describe()
}

// describe turns descr, e.g. "<i8", into size and sign.
func (h *header) describe() error {
	if len(h.shape) != 1 && len(h.shape) != 2 {
		return fmt.Errorf("array of %d dimensions, want 1 or 2", len(h.shape))
	}
	if len(h.descr) == 3 && strings.Contains("iu", h.descr[1:2]) && strings.Contains("1248", h.descr[2:]) {
		h.size, h.signed = int(h.descr[2]-'0'), h.descr[1] == 'i'
		if h.descr[0] == '<' || h.size == 1 && h.descr[0] == '|' {
			return nil
		}
	}
	return fmt.Errorf("array of type %q, want little-endian integers", h.descr)
}

// literal reads the few Python literals a header has. The first fault sticks in err.
type literal struct {
	text string
	err  error
}

func (p *literal) fail() {
	if p.err == nil {
		p.err = fmt.Errorf("header is not understood at %.20q", p.text)
	}
}

func (p *literal) accept(c byte) bool {
	p.text = strings.TrimLeft(p.text, " \t\r\n")
	if p.err != nil || p.text == "" || p.text[0] != c {
		return false
	}
	p.text = p.text[1:]
	return true
}

func (p *literal) expect(c byte) {
	if !p.accept(c) {
		p.fail()
	}
}

func (p *literal) str() string {
	for _, quote := range []byte{'\'', '"'} {
		if !p.accept(quote) {
			continue
		}
		s, rest, found := strings.Cut(p.text, string(quote))
		if !found || strings.Contains(s, "\\") {
			p.fail()
			return ""
		}
		p.text = rest
		return s
	}
	p.fail()
	return ""
}

func (p *literal) boolean() bool {
	p.text = strings.TrimLeft(p.text, " \t\r\n")
	for word, value := range map[string]bool{"True": true, "False": false} {
		if rest, found := strings.CutPrefix(p.text, word); found {
			p.text = rest
			return value
		}
	}
	p.fail()
	return false
}

func (p *literal) shape() []int {
	shape := []int{}
	p.expect('(')
	for p.err == nil && !p.accept(')') {
		p.text = strings.TrimLeft(p.text, " \t\r\n")
		digits := len(p.text) - len(strings.TrimLeft(p.text, "0123456789"))
		n, err := strconv.Atoi(p.text[:digits])
		if err != nil || n > maxElements || len(shape) == 2 {
			p.fail()
			return nil
		}
		p.text = strings.TrimPrefix(p.text[digits:], "L") // written by Python 2
		shape = append(shape, n)
		if !p.accept(',') {
			p.expect(')')
			break
		}
	}
	return shape
}
