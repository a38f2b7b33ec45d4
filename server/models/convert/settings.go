package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
)

// Bounds of the small files beside the weights. The largest real one, tokenizer.json, has 3 MB.
const maxTextBytes = 64 << 20

// readText reads a small file; one that is not there is os.ErrNotExist.
func readText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTextBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	if len(b) > maxTextBytes {
		return nil, fmt.Errorf("read %q: more than %d bytes", path, maxTextBytes)
	}
	return b, nil
}

// settings is a JSON object of a foreign config. The first value of a wrong type sticks in *err, so that a long list
// of reads is checked once.
type settings struct {
	name   string // for errors, e.g. "config.json: semantic_config"
	values map[string]any
	err    *error
}

// parseSettings reads a JSON object.
func parseSettings(name string, text []byte) (settings, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	s := settings{name: name, err: new(error)}
	if err := d.Decode(&s.values); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("%s: text after the JSON object", name)
	}
	if s.values == nil {
		return s, fmt.Errorf("%s: not a JSON object", name)
	}
	return s, nil
}

func (s settings) fail(key string, want string) {
	if *s.err == nil {
		*s.err = fmt.Errorf("%s: %s is %.40v, want %s", s.name, key, s.values[key], want)
	}
}

// find returns the first of the keys that has a value; null counts as none.
func (s settings) find(keys ...string) (string, any) {
	for _, key := range keys {
		if v := s.values[key]; v != nil {
			return key, v
		}
	}
	return "", nil
}

// integer returns the value of the first key that is there, or the default.
func (s settings) integer(def int, keys ...string) int {
	key, v := s.find(keys...)
	if v == nil {
		return def
	}
	f, ok := number(v)
	if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<31 {
		s.fail(key, "an integer")
		return def
	}
	return int(f)
}

func (s settings) float(def float64, key string) float64 {
	_, v := s.find(key)
	if v == nil {
		return def
	}
	f, ok := number(v)
	if !ok {
		s.fail(key, "a number")
		return def
	}
	return f
}

// number converts what JSON and pickles have for numbers.
func number(v any) (float64, bool) {
	switch n := v.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(n.String(), 64)
		return f, err == nil
	case int64:
		return float64(n), true
	case float64:
		return n, !math.IsNaN(n) && !math.IsInf(n, 0)
	}
	return 0, false
}

func (s settings) boolean(def bool, key string) bool {
	_, v := s.find(key)
	if v == nil {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		s.fail(key, "true or false")
		return def
	}
	return b
}

func (s settings) text(def, key string) string {
	_, v := s.find(key)
	if v == nil {
		return def
	}
	t, ok := v.(string)
	if !ok {
		s.fail(key, "a string")
		return def
	}
	return t
}

func (s settings) integers(def []int, key string) []int {
	_, v := s.find(key)
	if v == nil {
		return def
	}
	items, ok := v.([]any)
	out := make([]int, len(items))
	for i, item := range items {
		f, isNumber := number(item)
		ok = ok && isNumber && f == math.Trunc(f) && math.Abs(f) <= 1<<31
		out[i] = int(f)
	}
	if !ok {
		s.fail(key, "a list of integers")
		return def
	}
	return out
}

// object returns a nested object, empty when absent.
func (s settings) object(key string) settings {
	sub := settings{name: s.name + ": " + key, err: s.err}
	_, v := s.find(key)
	if v == nil {
		return sub
	}
	values, ok := v.(map[string]any)
	if !ok {
		s.fail(key, "an object")
	}
	sub.values = values
	return sub
}
