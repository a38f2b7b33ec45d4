// Command barkd serves speech from Bark models over HTTP, and makes, fetches, converts and inspects from the command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// version is that of cmake/Version.cmake; a test compares them.
const version = "0.1.0"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// From the first signal on the next one ends the process at once, whatever still shuts down.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}, os.Getenv))
}

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// usageError is a mistake in the command line or in a setting of the environment.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// helpShown stops the parser after --help.
type helpShown struct{ code int }

// run executes one command and returns the exit code. Errors go to stderr in one sentence.
func run(ctx context.Context, args []string, io stdio, getenv func(string) string) (code int) {
	defer func() {
		if p := recover(); p != nil {
			shown, ok := p.(helpShown)
			if !ok {
				panic(p)
			}
			code = shown.code
		}
	}()
	err := execute(ctx, args, io, getenv)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(io.err, "barkd: "+sentence(err))
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

func execute(ctx context.Context, args []string, io stdio, getenv func(string) string) error {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	for i, arg := range args {
		if !utf8.ValidString(arg) { // kong would replace the bad bytes in silence
			return fmt.Errorf("argument %d, %q, is not valid UTF-8", i+1, arg)
		}
	}
	again := parse(func() (*kong.Context, *configFile, error) { return parseCommand(ctx, args, io, getenv) })
	parsed, file, err := again()
	if err != nil {
		return err
	}
	err = parsed.Run(file, again)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	return err
}

// parseCommand reads the command line, and from the environment and the configuration file what it does not give.
func parseCommand(ctx context.Context, args []string, io stdio, getenv func(string) string) (*kong.Context, *configFile, error) {
	var cli commandLine
	file := &configFile{getenv: getenv}
	parser, err := kong.New(&cli,
		kong.Name("barkd"),
		kong.Description("Speech from Bark models: a server and its tools. Settings come from flags, else the environment, else (of serve) a file, else defaults."),
		kong.Writers(io.out, io.err),
		kong.Exit(func(code int) { panic(helpShown{code}) }),
		kong.Resolvers(file, environment(getenv)), // the last one wins
		kong.ValueFormatter(nameVariable),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(io),
		kong.Bind(environ{getenv}),
	)
	if err != nil {
		return nil, nil, err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return nil, nil, &usageError{fmt.Errorf("%w; 'barkd --help' explains", err)}
	}
	return parsed, file, nil
}

// environ is the process's environment, for commands that read more of it than their own settings.
type environ struct{ get func(string) string }

// environment takes settings that no flag gives from the variable their tag names. An empty variable is none.
func environment(getenv func(string) string) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if name := flag.Tag.Get("var"); name != "" {
			if value := getenv(name); value != "" {
				return value, nil
			}
		}
		return nil, nil
	})
}

// nameVariable appends a setting's variable to its help.
func nameVariable(value *kong.Value) string {
	help := kong.DefaultHelpValueFormatter(value)
	if name := value.Tag.Get("var"); name != "" {
		help += " ($" + name + ")"
	}
	return help
}

// sentence puts an error on one line.
func sentence(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
