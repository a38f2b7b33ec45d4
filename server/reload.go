package main

import (
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"

	"barkd/server/api"
)

// parse reads the command line, the environment and the configuration file, again if need be.
type parse func() (*kong.Context, *configFile, error)

// live is a running server whose settings can change.
type live struct {
	parse    parse
	settings []setting // in force, but for those that wait for a restart
	server   *api.Server
	house    *house
	level    *levelFilter
	log      zerolog.Logger

	certificate *certificate // nil for plain HTTP
}

// follow reloads the settings at each SIGHUP; the returned function ends that and waits for it.
func (l *live) follow() (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	var following sync.WaitGroup
	following.Go(func() {
		for {
			select {
			case <-signals:
				l.reload()
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(done)
		following.Wait()
	}
}

// reload puts the settings in force that can change while the server runs: all of them, or none if anything is wrong.
func (l *live) reload() {
	settings, level, err := l.change()
	if err != nil {
		l.log.Error().Err(err).Msg("settings not reloaded: all stay as they are")
		return
	}
	now, later := changes(l.settings, settings)
	line := l.log.Info()
	if len(later) > 0 {
		line = l.log.Warn().Strs("at_restart", later)
	}
	if l.certificate != nil {
		line = line.Time("certificate_until", l.certificate.until())
	}
	line.Strs("changed", now).Msg("settings reloaded")
	l.level.set(level) // not before: what changed is said at the level that was
	for i, s := range settings {
		if s.live {
			l.settings[i] = s
		}
	}
}

// change reads the settings and puts those in force that may change. Nothing changes before all of them are known to be
// good.
func (l *live) change() ([]setting, zerolog.Level, error) {
	parsed, file, err := l.parse()
	if err != nil {
		return nil, 0, err
	}
	cfg, err := parsed.Selected().Target.Addr().Interface().(*serveCommand).config(file.problems...)
	if err != nil {
		return nil, 0, err
	}
	budgets, err := deviceBudgets(l.house.pool.Devices(), cfg.cache.budgets)
	if err != nil {
		return nil, 0, err
	}
	if l.certificate != nil { // the files that it began with: others wait for a restart
		pair, err := l.certificate.files.read()
		if err != nil {
			return nil, 0, err
		}
		l.certificate.current.Store(pair)
	}
	l.house.change(cfg, budgets)
	l.server.SetRules(cfg.rules)
	return effective(parsed, file), cfg.logLevel, nil
}

// levelFilter writes the lines of a log from a level on that may change.
type levelFilter struct {
	io.Writer
	least atomic.Int32
}

// from is a filter that lets lines of the level through and those above.
func from(level zerolog.Level) *levelFilter {
	f := &levelFilter{}
	f.set(level)
	return f
}

func (f *levelFilter) set(level zerolog.Level) { f.least.Store(int32(level)) }

// WriteLevel implements zerolog.LevelWriter.
func (f *levelFilter) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	if int32(level) < f.least.Load() {
		return len(line), nil
	}
	return f.Write(line)
}
