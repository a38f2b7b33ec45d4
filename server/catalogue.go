package main

import (
	"context"
	"strings"

	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/cgo/mock"
	"barkd/server/api"
	"barkd/server/models"
)

// storeCatalogue lists the store's files and the embedded model.
type storeCatalogue struct {
	store    *models.Store
	log      zerolog.Logger
	embedded func() (api.Model, error)
}

// List implements api.Catalogue. A file that cannot be read is no model: it is logged and left out.
func (c *storeCatalogue) List(context.Context) ([]api.Model, error) {
	entries, err := c.store.List()
	if err != nil {
		return nil, err
	}
	out := make([]api.Model, 0, len(entries))
	for _, e := range entries {
		m, err := c.model(e)
		if err != nil {
			c.log.Warn().Err(err).Str("model", e.ID).Msg("a model is left out of the list")
			continue
		}
		out = append(out, m)
	}
	return out, nil
}

// Find implements api.Catalogue.
func (c *storeCatalogue) Find(_ context.Context, id string) (api.Model, error) {
	e, err := c.store.Find(id)
	if err != nil {
		return api.Model{}, foreignID(err)
	}
	return c.model(e)
}

func (c *storeCatalogue) model(e models.Entry) (api.Model, error) {
	switch {
	case e.Embedded:
		return c.embedded()
	case e.Err != nil:
		return api.Model{}, e.Err
	}
	return api.Model{ID: e.ID, Created: e.Modified, OwnedBy: owner(e.ID), Trained: e.Trained, Bytes: e.Bytes, Voices: e.Voices}, nil
}

// mockCatalogue describes the simulated models, with a runtime that takes no time.
type mockCatalogue struct{ runtime cgo.Runtime }

// List implements api.Catalogue.
func (c mockCatalogue) List(ctx context.Context) ([]api.Model, error) {
	var out []api.Model
	for _, id := range mock.Models() {
		m, err := c.Find(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Find implements api.Catalogue.
func (c mockCatalogue) Find(ctx context.Context, id string) (api.Model, error) {
	src, err := mock.Resolve(id)
	if err != nil {
		return api.Model{}, err
	}
	info, memory, err := describe(ctx, c.runtime, src)
	if err != nil {
		return api.Model{}, err
	}
	return api.Model{ID: id, OwnedBy: owner(id), Trained: info.Trained, Bytes: memory.WeightsBytes, Voices: info.Voices}, nil
}

// owner is an id's organisation.
func owner(id string) string {
	name, _, _ := strings.Cut(id, "/")
	return name
}
