package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/mock"
	"barkd/cgo/native"
	"barkd/server/api"
	"barkd/server/models"
)

// backend is what runs models, and the models it can run.
type backend struct {
	name    string
	runtime cgo.Runtime
	// resolve finds a model by an id that may come from anyone; argument also takes what a user at the keyboard
	// may name, a .gguf file.
	resolve, argument func(name string) (cgo.Source, error)
	// open reads a model's image.
	open      func(cgo.Source) (io.ReadCloser, error)
	catalogue api.Catalogue
}

func openBackend(cfg runtimeConfig, log zerolog.Logger) (*backend, error) {
	if cfg.mock {
		return openMock(cfg), nil
	}
	store, err := models.Open(cfg.models)
	if err != nil {
		return nil, err
	}
	runtime, err := native.New(nativeLog(log))
	if err != nil {
		return nil, err
	}
	return &backend{
		name:    "native",
		runtime: runtime,
		resolve: func(id string) (cgo.Source, error) {
			src, err := store.Resolve(id)
			return src, foreignID(err)
		},
		argument: store.ResolveArgument,
		open: func(src cgo.Source) (io.ReadCloser, error) {
			if src.Embedded {
				return io.NopCloser(bytes.NewReader(native.DefaultModel())), nil
			}
			return os.Open(src.Path)
		},
		catalogue: &storeCatalogue{store: store, log: log, embedded: sync.OnceValues(func() (api.Model, error) { return embedded(runtime) })},
	}, nil
}

// nativeLog passes the library's messages on; its levels are those of barkrt_log_level.
func nativeLog(log zerolog.Logger) func(level int, text string) {
	levels := [...]zerolog.Level{zerolog.DebugLevel, zerolog.InfoLevel, zerolog.WarnLevel}
	return func(level int, text string) {
		if level < 0 || level >= len(levels) {
			level = len(levels) - 1
		}
		log.WithLevel(levels[level]).Str("from", "libbarkrt").Msg(text)
	}
}

// foreignID makes the error about what cannot be an id one about a model that is not there: to a client of the API
// the two are the same.
func foreignID(err error) error {
	if errors.Is(err, models.ErrBadID) {
		return fmt.Errorf("%w: %w", cgo.ErrNotFound, err)
	}
	return err
}

// describe loads a model to learn its facts.
func describe(ctx context.Context, runtime cgo.Runtime, src cgo.Source) (cgo.ModelInfo, cgo.Memory, error) {
	model, err := runtime.Load(ctx, src, cgo.LoadOptions{})
	if err != nil {
		return cgo.ModelInfo{}, cgo.Memory{}, err
	}
	info, memory := model.Info(), model.Memory()
	return info, memory, model.Close()
}

// embedded describes the default model: loading it is looking at the program's own bytes.
func embedded(runtime cgo.Runtime) (api.Model, error) {
	info, memory, err := describe(context.Background(), runtime, cgo.Source{Name: models.DefaultID, Embedded: true})
	if err != nil {
		return api.Model{}, fmt.Errorf("the embedded model %s: %w", models.DefaultID, err)
	}
	return api.Model{ID: models.DefaultID, OwnedBy: "barkd", Trained: info.Trained, Bytes: memory.WeightsBytes, Voices: info.Voices}, nil
}

// openMock simulates the runtime; nothing above it knows.
func openMock(cfg runtimeConfig) *backend {
	return &backend{
		name:      "mock",
		runtime:   mock.New(mock.Options{TimeScale: cfg.timeScale, Faults: cfg.faults, GPUs: cfg.gpus}),
		resolve:   mock.Resolve,
		argument:  mock.Resolve,
		open:      func(src cgo.Source) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(src.Path)), nil },
		catalogue: mockCatalogue{mock.New(mock.Options{})},
	}
}
