package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// maxConfigBytes bounds the configuration file.
const maxConfigBytes = 1 << 20

// variableOfConfig names the configuration file where --config does not.
const variableOfConfig = "BARKD_CONFIG"

// configFile has the settings of `barkd serve` and `barkd health` that a YAML file gives, by the names of their variables in lower case.
// It is a kong.Resolver, and the weakest of them: flags and the environment go before it.
type configFile struct {
	getenv   func(string) string
	read     bool // it has been, or there is none
	values   map[string]fileValue
	problems []string
}

// fileValue is a setting as text, and where it stands.
type fileValue struct{ text, at string }

// Validate implements kong.Resolver; what is wrong with the file is said with all that is wrong with the settings.
func (f *configFile) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver.
func (f *configFile) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if command := ctx.Command(); command != "serve" && command != "health" { // which asks the server of the same file
		return nil, nil
	}
	if !f.read {
		f.read = true
		f.open(f.path(ctx), variables(ctx))
	}
	if v, ok := f.values[flag.Tag.Get("var")]; ok {
		return v.text, nil
	}
	return nil, nil
}

// path is that of the file, "" for none.
func (f *configFile) path(ctx *kong.Context) string {
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Tag.Get("var") == variableOfConfig {
			return fmt.Sprint(ctx.FlagValue(p.Flag))
		}
	}
	return f.getenv(variableOfConfig)
}

// variables are the names that settings of the command have.
func variables(ctx *kong.Context) []string {
	var out []string
	for _, flag := range ctx.Selected().Flags {
		if name := flag.Tag.Get("var"); name != "" && name != variableOfConfig {
			out = append(out, name)
		}
	}
	return out
}

func (f *configFile) bad(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

// open reads the file. Its problems are collected.
func (f *configFile) open(path string, known []string) {
	if path == "" {
		return
	}
	text, err := readBounded(path)
	if err != nil {
		f.bad("%v", err)
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return // empty, or comments alone
	case err != nil:
		f.bad("%s: %s", path, withoutValues(err))
		return
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		f.bad("%s: there must be one YAML document in it", path)
		return
	}
	f.take(path, document.Content[0], known)
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err == nil && len(text) > maxConfigBytes {
		err = fmt.Errorf("%s has more than %d bytes", path, maxConfigBytes)
	}
	return text, err
}

// take takes the settings of the file's mapping.
func (f *configFile) take(path string, root *yaml.Node, known []string) {
	if root.Kind != yaml.MappingNode {
		f.bad("%s: it must be a mapping of settings, such as 'port: 8000'", path)
		return
	}
	names := make([]string, len(known))
	for i, name := range known {
		names[i] = strings.ToLower(name)
	}
	f.values = make(map[string]fileValue)
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d", filepath.Base(path), key.Line)
		variable := strings.ToUpper(key.Value)
		if !slices.Contains(names, key.Value) {
			f.bad("%s: there is no setting %q; did you mean %q?", at, key.Value, nearest(key.Value, names))
			continue
		}
		if old, twice := f.values[variable]; twice {
			f.bad("%s: %s is set at %s already", at, key.Value, old.at)
			continue
		}
		text, err := settingText(value)
		if err != nil {
			f.bad("%s: %s %v", at, key.Value, err)
			continue
		}
		if text != "" { // an empty one is none, as in the environment
			f.values[variable] = fileValue{text, at}
		}
	}
}

// settingText writes a value of the file as a flag would have it: a list with commas, or in brackets as YAML if there is
// more to it.
func settingText(value *yaml.Node) (string, error) {
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	switch {
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
		return "", errors.New("has no value")
	case value.Kind == yaml.ScalarNode:
		return value.Value, nil
	case value.Kind == yaml.MappingNode:
		return "", errors.New("must be a text, a number, true or false, or a list")
	}
	var parts []string
	for _, part := range value.Content {
		if part.Kind != yaml.ScalarNode || part.Tag == "!!null" {
			flow := *value
			flow.Style = yaml.FlowStyle
			text, err := yaml.Marshal(&flow)
			return strings.TrimSpace(string(text)), err
		}
		parts = append(parts, part.Value)
	}
	return strings.Join(parts, ","), nil
}
