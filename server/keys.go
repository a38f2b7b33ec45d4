package main

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"

	"barkd/server/api"
)

// maxPriority bounds a key's priority on both sides: a step is worth half a minute of waiting.
const maxPriority = 20

// keyEntry is a key with what its bearers may do, as the settings have it.
type keyEntry struct {
	Name                string
	Key                 string
	SHA256              string `yaml:"sha256"`
	Priority            int
	RequestsPerMinute   *int `yaml:"requests_per_minute"`
	CharactersPerMinute *int `yaml:"characters_per_minute"`
	Concurrent          *int
}

var keyFields = []string{"name", "key", "sha256", "priority", "requests_per_minute", "characters_per_minute", "concurrent"}

// keys reads API_KEYS: keys with commas between them, or a YAML list in brackets of keys and of mappings with
// keyFields. usual is the allowance where an entry says nothing. What is wrong is said without the keys themselves.
func (s *settings) keys(name, value string, usual api.Allowance) []api.Key {
	entries, err := splitKeys(value)
	if err != nil {
		s.problems = append(s.problems, fmt.Sprintf("%s: %v", name, err))
		return nil
	}
	var out []api.Key
	seen := make(map[any]int)
	for i, e := range entries {
		key, err := e.check(usual)
		if err == nil {
			if key.Name == "" {
				key.Name = fmt.Sprintf("key-%d", i+1)
			}
			for _, of := range []any{key.Name, key.Digest} {
				if first, there := seen[of]; there {
					err = fmt.Errorf("it has the name or the key of entry %d", first)
				}
				seen[of] = i + 1
			}
		}
		if err != nil {
			s.problems = append(s.problems, fmt.Sprintf("%s, entry %d: %v", name, i+1, err))
		}
		out = append(out, key)
	}
	return out
}

func splitKeys(value string) ([]keyEntry, error) {
	var out []keyEntry
	if !strings.HasPrefix(strings.TrimSpace(value), "[") {
		for _, key := range splitList(value) {
			out = append(out, keyEntry{Key: key})
		}
		return out, nil
	}
	var list []yaml.Node
	if err := yaml.Unmarshal([]byte(value), &list); err != nil {
		return nil, fmt.Errorf("it is no list of keys: %s", withoutValues(err))
	}
	for i, node := range list {
		var e keyEntry
		switch node.Kind {
		case yaml.ScalarNode:
			e.Key = node.Value
		case yaml.MappingNode:
			for j := 0; j < len(node.Content); j += 2 {
				if field := node.Content[j].Value; !slices.Contains(keyFields, field) {
					return nil, fmt.Errorf("entry %d: there is no %q; did you mean %q?", i+1, field, nearest(field, keyFields))
				}
			}
			if err := node.Decode(&e); err != nil {
				return nil, fmt.Errorf("entry %d: %s", i+1, withoutValues(err))
			}
		default:
			return nil, fmt.Errorf("entry %d is neither a key nor a mapping", i+1)
		}
		out = append(out, e)
	}
	return out, nil
}

// check makes the key of an entry.
func (e keyEntry) check(usual api.Allowance) (api.Key, error) {
	key := api.Key{Name: e.Name, Priority: e.Priority, Allowance: usual}
	if digest, ok := strings.CutPrefix(e.Key, "sha256:"); ok && e.SHA256 == "" {
		e.Key, e.SHA256 = "", digest
	}
	switch {
	case (e.Key == "") == (e.SHA256 == ""):
		return key, fmt.Errorf("it must have a key or its sha256, one of them")
	case e.Key == hidden:
		return key, fmt.Errorf("it is what --print-config shows instead of the keys")
	case e.Key != "" && !isToken(e.Key):
		return key, fmt.Errorf("the key must be printable ASCII without blanks")
	case e.Name != "" && !isToken(e.Name):
		return key, fmt.Errorf("the name %q must be printable ASCII without blanks", e.Name)
	case e.Priority < -maxPriority || e.Priority > maxPriority:
		return key, fmt.Errorf("the priority %d must be from %d to %d", e.Priority, -maxPriority, maxPriority)
	}
	if key.Digest = api.DigestOf(e.Key); e.SHA256 != "" {
		digest, err := hex.DecodeString(e.SHA256)
		if err != nil || len(digest) != len(key.Digest) {
			return key, fmt.Errorf("its sha256 must be %d hexadecimal digits", 2*len(key.Digest))
		}
		key.Digest = api.Digest(digest)
	}
	for _, of := range []struct {
		name string
		from *int
		to   *int
	}{
		{"requests_per_minute", e.RequestsPerMinute, &key.Allowance.RequestsPerMinute},
		{"characters_per_minute", e.CharactersPerMinute, &key.Allowance.CharactersPerMinute},
		{"concurrent", e.Concurrent, &key.Allowance.Concurrent},
	} {
		if of.from == nil {
			continue
		}
		if *of.from < 0 || *of.from > math.MaxInt32 {
			return key, fmt.Errorf("%s is %d, it must be at least 0 (no limit)", of.name, *of.from)
		}
		*of.to = *of.from
	}
	return key, nil
}

// withoutValues takes out of an error of the YAML decoder what it quotes: it may be a key.
func withoutValues(err error) string {
	parts := strings.Split(sentence(err), "`")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "…"
	}
	return strings.Join(parts, "`")
}

// nearest returns the known name that is most like the given one.
func nearest(name string, known []string) string {
	best, least := "", math.MaxInt
	for _, k := range known {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// isToken says whether a text is printable ASCII without blanks.
func isToken(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
