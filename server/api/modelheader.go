package api

import (
	"errors"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// headerModel names the model beside the body, where a router that does not read bodies sees it. A response names the
// model that spoke in it.
const headerModel = "X-Barkd-Model"

// modelHeaders are the headers that may name the model; the second is what the Endpoint Picker of llm-d goes by.
var modelHeaders = []string{headerModel, "X-Llm-D-Model-Name-Rewrite"}

// modelOf returns the request's model: that of its body, or of a header if the body names none. Two that differ are
// refused: the request would have been sent to the wrong server.
func modelOf(c *fiber.Ctx, body string) (string, error) {
	model := body
	for _, name := range modelHeaders {
		given := strings.Clone(c.Get(name))
		switch {
		case given == "" || given == model:
		case len(given) > maxModelID || !fitLine(given):
			return "", badRequest("model", "invalid_value", "The header %s must be the id of a model, of at most %d printable characters.", name, maxModelID)
		case model != "":
			return "", badRequest("model", "model_conflict", "The header %s names the model %q, the request otherwise %q.", name, given, model)
		default:
			model = given
		}
	}
	if model == "" {
		return "", missing("model")
	}
	return model, nil
}

// modelOrDefault is modelOf for requests that need not name a model.
func (s *Server) modelOrDefault(c *fiber.Ctx, body string) (string, error) {
	model, err := modelOf(c, body)
	var wrong *Error
	if errors.As(err, &wrong) && wrong.Code == codeMissing {
		return s.DefaultModel, nil
	}
	return model, err
}
