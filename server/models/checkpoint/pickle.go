package checkpoint

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"
)

// Bounds of a pickle. A real state dict has about 50 000 opcodes.
const (
	maxPickleBytes = 32 << 20
	maxOpcodes     = 8 << 20
	maxStack       = 1 << 20
	maxString      = 1 << 20
)

// What a pickle may build: nil, bool, int64, float64, string, []byte, *list, tuple, *Dict, *Tensor, and the types below,
// which only serve the way there.
type (
	tuple   []any
	list    struct{ items []any }
	mark    struct{}
	global  string   // "module name", one of the known ones
	opaque  struct{} // something harmless that nothing is needed from
	storeID struct {
		dtype DType
		key   string
		count int64
	}
)

// Dict is a Python dict in insertion order.
type Dict struct {
	Keys   []any
	Values []any
	index  map[string]int // of string keys
}

// Get returns the value of a string key.
func (d *Dict) Get(key string) (any, bool) {
	i, ok := d.index[key]
	if !ok {
		return nil, false
	}
	return d.Values[i], true
}

func (d *Dict) set(key, value any) {
	if s, ok := key.(string); ok {
		if i, twice := d.index[s]; twice {
			d.Values[i] = value
			return
		}
		if d.index == nil {
			d.index = make(map[string]int)
		}
		d.index[s] = len(d.Keys)
	}
	d.Keys, d.Values = append(d.Keys, key), append(d.Values, value)
}

// unpickler runs pickle opcodes of protocol 2 to 5. It is not an interpreter: a GLOBAL may only name something in the
// table of globals.go, and REDUCE only builds what that table says.
type unpickler struct {
	in      *bufio.Reader
	pos     int64
	stack   []any
	memo    map[uint32]any
	opcodes int
	// locate turns a persistent id into where the bytes are.
	locate func(storeID) (*storage, error)
	ids    map[string]*storage
}

func newUnpickler(r io.Reader, locate func(storeID) (*storage, error)) *unpickler {
	return &unpickler{in: bufio.NewReaderSize(r, 1<<16), locate: locate, ids: make(map[string]*storage)}
}

// load runs one pickle up to its STOP and returns what it built.
func (u *unpickler) load() (any, error) {
	u.stack, u.memo = u.stack[:0], make(map[uint32]any)
	start := u.pos
	for {
		op, err := u.byte()
		if err != nil {
			return nil, err
		}
		if u.opcodes++; u.opcodes > maxOpcodes || u.pos-start > maxPickleBytes {
			return nil, u.fault(errors.New("pickle is too long"))
		}
		if op == '.' { // STOP
			v, err := u.pop()
			if err == nil && len(u.stack) != 0 {
				err = u.fault(errors.New("pickle leaves values behind"))
			}
			return v, err
		}
		if err := u.step(op); err != nil {
			return nil, u.fault(err)
		}
		if len(u.stack) > maxStack || len(u.memo) > maxStack {
			return nil, u.fault(errors.New("pickle is too deep"))
		}
	}
}

// pickleError says where in the file the fault is; it is added once.
type pickleError struct {
	at  int64
	err error
}

func (e *pickleError) Error() string { return fmt.Sprintf("pickle byte %d: %v", e.at, e.err) }
func (e *pickleError) Unwrap() error { return e.err }

func (u *unpickler) fault(err error) error {
	var known *pickleError
	if errors.As(err, &known) {
		return err
	}
	return &pickleError{u.pos, err}
}

func (u *unpickler) bytes(n int64) ([]byte, error) {
	if n < 0 || n > maxString {
		return nil, u.fault(fmt.Errorf("string of %d bytes, limit %d", n, maxString))
	}
	b := make([]byte, n)
	got, err := io.ReadFull(u.in, b)
	u.pos += int64(got)
	if err != nil {
		return nil, u.fault(errors.New("pickle is cut off"))
	}
	return b, nil
}

func (u *unpickler) byte() (byte, error) {
	b, err := u.in.ReadByte()
	if err != nil {
		return 0, u.fault(errors.New("pickle is cut off"))
	}
	u.pos++
	return b, nil
}

// uint reads n little-endian bytes, 8 at most.
func (u *unpickler) uint(n int64) (uint64, error) {
	b, err := u.bytes(n)
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:]), nil
}

func (u *unpickler) push(v any) error {
	u.stack = append(u.stack, v)
	return nil
}

func (u *unpickler) pop() (any, error) {
	if len(u.stack) == 0 {
		return nil, u.fault(errors.New("pickle takes from an empty stack"))
	}
	v := u.stack[len(u.stack)-1]
	u.stack = u.stack[:len(u.stack)-1]
	if _, ok := v.(mark); ok {
		return nil, u.fault(errors.New("pickle takes a mark for a value"))
	}
	return v, nil
}

// popN returns the top n values in the order they were pushed.
func (u *unpickler) popN(n int) ([]any, error) {
	out := make([]any, n)
	for i := n - 1; i >= 0; i-- {
		v, err := u.pop()
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// popMark returns the values above the last mark and removes both.
func (u *unpickler) popMark() ([]any, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if _, ok := u.stack[i].(mark); ok {
			out := append([]any(nil), u.stack[i+1:]...)
			u.stack = u.stack[:i]
			return out, nil
		}
	}
	return nil, errors.New("pickle lacks a mark")
}

func (u *unpickler) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := u.byte()
		if err == nil && (v < 2 || v > 5) {
			err = fmt.Errorf("pickle protocol %d", v)
		}
		return err
	case 0x95: // FRAME
		_, err := u.uint(8)
		return err
	case '(':
		return u.push(mark{})
	case 'N':
		return u.push(nil)
	case 0x88:
		return u.push(true)
	case 0x89:
		return u.push(false)
	case '}':
		return u.push(&Dict{})
	case ']':
		return u.push(&list{})
	case ')':
		return u.push(tuple{})
	case 'J', 'K', 'M', 'G', 0x8a: // BININT BININT1 BININT2 BINFLOAT LONG1
		return u.number(op)
	case 'X', 0x8c, 'B', 'C': // BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES
		return u.text(op)
	case 't', 0x85, 0x86, 0x87: // TUPLE TUPLE1 TUPLE2 TUPLE3
		return u.tuple(op)
	case 'q', 'r', 0x94, 'h', 'j': // BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET
		return u.remember(op)
	case 'a', 'e', 's', 'u': // APPEND APPENDS SETITEM SETITEMS
		return u.fill(op)
	case 'c', 0x93: // GLOBAL STACK_GLOBAL
		return u.global(op)
	case 'Q': // BINPERSID
		return u.persistent()
	case 'R': // REDUCE
		v, err := u.popN(2)
		if err != nil {
			return err
		}
		built, err := u.call(v[0], v[1])
		if err != nil {
			return err
		}
		return u.push(built)
	case 'b': // BUILD
		return u.build()
	}
	return fmt.Errorf("opcode 0x%02x is not allowed", op)
}

func (u *unpickler) number(op byte) error {
	if op == 0x8a {
		n, err := u.byte()
		if err != nil {
			return err
		}
		if n > 8 {
			return fmt.Errorf("integer of %d bytes", n)
		}
		v, err := u.uint(int64(n))
		if err == nil && n > 0 {
			shift := 64 - 8*n
			return u.push(int64(v<<shift) >> shift)
		}
		if err == nil {
			return u.push(int64(0))
		}
		return err
	}
	v, err := u.uint(map[byte]int64{'J': 4, 'K': 1, 'M': 2, 'G': 8}[op])
	if err != nil {
		return err
	}
	switch op {
	case 'J':
		return u.push(int64(int32(v)))
	case 'G': // big-endian, alone among the opcodes
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		return u.push(math.Float64frombits(binary.BigEndian.Uint64(b[:])))
	}
	return u.push(int64(v))
}

func (u *unpickler) text(op byte) error {
	width := int64(4)
	if op == 0x8c || op == 'C' {
		width = 1
	}
	n, err := u.uint(width)
	if err != nil {
		return err
	}
	b, err := u.bytes(int64(n))
	if err != nil {
		return err
	}
	if op == 'B' || op == 'C' {
		return u.push(b)
	}
	if !utf8.Valid(b) {
		return errors.New("string is not UTF-8")
	}
	return u.push(string(b))
}

func (u *unpickler) tuple(op byte) error {
	var items []any
	var err error
	if op == 't' {
		items, err = u.popMark()
	} else {
		items, err = u.popN(int(op) - 0x84)
	}
	if err != nil {
		return err
	}
	return u.push(tuple(items))
}

func (u *unpickler) remember(op byte) error {
	var key uint64
	var err error
	switch op {
	case 'q', 'h':
		key, err = u.uint(1)
	case 'r', 'j':
		key, err = u.uint(4)
	default:
		key = uint64(len(u.memo))
	}
	if err != nil {
		return err
	}
	if op == 'h' || op == 'j' {
		v, ok := u.memo[uint32(key)]
		if !ok {
			return fmt.Errorf("memo %d was never set", key)
		}
		return u.push(v)
	}
	v, err := u.pop()
	if err != nil {
		return err
	}
	u.memo[uint32(key)] = v
	return u.push(v)
}

// fill adds items to the list or dict below them.
func (u *unpickler) fill(op byte) error {
	var items []any
	var err error
	switch op {
	case 'a':
		items, err = u.popN(1)
	case 's':
		items, err = u.popN(2)
	default:
		items, err = u.popMark()
	}
	if err != nil {
		return err
	}
	into, err := u.pop()
	if err != nil {
		return err
	}
	switch c := into.(type) {
	case *list:
		if op == 's' || op == 'u' {
			return errors.New("pickle sets a key of a list")
		}
		c.items = append(c.items, items...)
	case *Dict:
		if op == 'a' || op == 'e' || len(items)%2 != 0 {
			return errors.New("pickle appends to a dict")
		}
		for i := 0; i < len(items); i += 2 {
			switch items[i].(type) {
			case string, int64, bool, float64, nil, tuple:
				c.set(items[i], items[i+1])
			default:
				return fmt.Errorf("pickle uses a %T as a key", items[i])
			}
		}
	default:
		return fmt.Errorf("pickle adds items to a %T", into)
	}
	return u.push(into)
}
