package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// hidden stands for a secret where settings are shown. It is refused where a secret is wanted.
const hidden = "(hidden)"

// setting is one setting of the command as it is in force.
type setting struct {
	variable, value string
	source          string // "default", "environment", a flag, or where it stands in the file
	secret          bool
	live            bool // it may change while the server runs
}

// shown is the value for people to see.
func (s setting) shown() string {
	if s.secret && s.value != "" {
		return hidden
	}
	return s.value
}

// effective lists the settings of the parsed command and where each comes from.
func effective(ctx *kong.Context, file *configFile) []setting {
	given := make(map[*kong.Flag]bool)
	for _, p := range ctx.Path {
		if p.Flag != nil && !p.Resolved {
			given[p.Flag] = true
		}
	}
	var out []setting
	for _, flag := range ctx.Selected().Flags {
		name := flag.Tag.Get("var")
		if name == "" || name == variableOfConfig {
			continue
		}
		s := setting{variable: name, value: flag.Target.String(), source: "default", secret: flag.Tag.Has("secret"), live: flag.Tag.Has("live")}
		v, inFile := file.values[name]
		switch {
		case given[flag]:
			s.source = "--" + flag.Name
		case file.getenv(name) != "":
			s.source = "environment"
		case inFile:
			s.source = v.at
		}
		out = append(out, s)
	}
	return out
}

// printSettings writes the settings as a configuration file, each with its source behind it.
func printSettings(w io.Writer, all []setting) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range all {
		value := &yaml.Node{Kind: yaml.ScalarNode, Value: s.shown(), LineComment: s.source}
		if value.Value == "" {
			value.Style = yaml.DoubleQuotedStyle
		}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: strings.ToLower(s.variable)}, value)
	}
	text, err := yaml.Marshal(root)
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// changes names the settings that differ, those that can change now and those that need a restart.
func changes(old, next []setting) (now, later []string) {
	for i, s := range next {
		if s.value == old[i].value {
			continue
		}
		line := fmt.Sprintf("%s: %s → %s", s.variable, old[i].shown(), s.shown())
		if s.secret {
			line = s.variable
		}
		if s.live {
			now = append(now, line)
		} else {
			later = append(later, line)
		}
	}
	return now, later
}
