package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/gofiber/fiber/v2"
	"go.yaml.in/yaml/v3"

	"barkd/server/web"
)

// docs is GET /docs: the page of the API.
func (s *Server) docs(c *fiber.Ctx) error { return sendAsset(c, web.Docs) }

// specYAML is GET /openapi.yaml.
func (s *Server) specYAML(c *fiber.Ctx) error {
	return sendSpec(c, s.OpenAPI, "application/yaml")
}

// specJSON is GET /openapi.json.
func (s *Server) specJSON(c *fiber.Ctx) error {
	text, err := s.specAsJSON()
	if err != nil {
		return err
	}
	return sendSpec(c, text, fiber.MIMEApplicationJSON)
}

func sendSpec(c *fiber.Ctx, text []byte, kind string) error {
	digest := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(digest[:16]) + `"`
	c.Set(fiber.HeaderCacheControl, "no-cache")
	c.Set(fiber.HeaderETag, tag)
	if holds(c.Get(fiber.HeaderIfNoneMatch), tag) {
		return c.SendStatus(fiber.StatusNotModified)
	}
	c.Set(fiber.HeaderContentType, kind)
	c.Context().Response.SetBodyRaw(text)
	return nil
}

// toJSON rewrites a YAML document. Its fields keep their order, which a reader of the API is meant to see.
func toJSON(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	var out bytes.Buffer
	if err := writeJSON(&out, &root); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	return out.Bytes(), nil
}

func writeJSON(out *bytes.Buffer, node *yaml.Node) error {
	switch node.Kind {
	case yaml.DocumentNode:
		return writeJSON(out, node.Content[0])
	case yaml.MappingNode:
		return writeItems(out, '{', '}', node.Content, 2)
	case yaml.SequenceNode:
		return writeItems(out, '[', ']', node.Content, 1)
	case yaml.AliasNode:
		return writeJSON(out, node.Alias)
	case yaml.ScalarNode:
		var value any
		if err := node.Decode(&value); err != nil {
			return err
		}
		text, err := json.Marshal(value)
		out.Write(text)
		return err
	}
	return fmt.Errorf("line %d: a kind of node that has no JSON", node.Line)
}

// writeItems writes the items of a list, or with two nodes to an item the fields of an object.
func writeItems(out *bytes.Buffer, open, end byte, nodes []*yaml.Node, each int) error {
	out.WriteByte(open)
	for i := 0; i < len(nodes); i += each {
		if i > 0 {
			out.WriteByte(',')
		}
		if each == 2 {
			name, err := json.Marshal(nodes[i].Value)
			if err != nil {
				return err
			}
			out.Write(name)
			out.WriteByte(':')
		}
		if err := writeJSON(out, nodes[i+each-1]); err != nil {
			return err
		}
	}
	out.WriteByte(end)
	return nil
}
