package api_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"barkd/server/api"
	"barkd/server/audio"
)

func document(t *testing.T) []byte {
	t.Helper()
	file, err := os.ReadFile("../openapi.yaml")
	require.NoError(t, err)
	return file
}

func TestOpenAPIIsServedAsYAMLAndAsJSON(t *testing.T) {
	s := newSite(t)
	asYAML, asJSON := s.do(t, "GET", "/openapi.yaml", ""), s.do(t, "GET", "/openapi.json", "")
	assert.Equal(t, document(t), asYAML.body)
	assert.Equal(t, "application/yaml", asYAML.header.Get("Content-Type"))
	assert.Equal(t, "application/json", asJSON.header.Get("Content-Type"))
	var want, got any
	require.NoError(t, yaml.Unmarshal(asYAML.body, &want))
	text, err := json.Marshal(want)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(asJSON.body, &got))
	sorted, err := json.Marshal(got)
	require.NoError(t, err)
	assert.JSONEq(t, string(text), string(sorted), "the same in both")
	assert.Less(t, bytes.Index(asJSON.body, []byte(`"input":{`)), bytes.Index(asJSON.body, []byte(`"keep_alive":{`)), "in its order")
	again := s.do(t, "GET", "/openapi.json", "", "If-None-Match", asJSON.header.Get("ETag"))
	assert.Equal(t, 304, again.status)
	assert.Empty(t, again.body)
	page := s.do(t, "GET", "/docs", "")
	assert.Equal(t, "text/html; charset=utf-8", page.header.Get("Content-Type"))
	assert.Contains(t, string(page.body), `src="/web/docs.js"`)
}

func TestOpenAPIDocumentsExactlyTheRoutes(t *testing.T) {
	file := document(t)
	var doc struct {
		Paths map[string]map[string]any
	}
	require.NoError(t, yaml.Unmarshal(file, &doc))
	stars := strings.NewReplacer("{model}", "*", "{file}", "*", "{voice}", "*", "{id}", ":id")
	var documented, served []string
	for path, methods := range doc.Paths {
		for method := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+stars.Replace(path))
		}
	}
	for _, r := range new(api.Server).Routes() {
		served = append(served, r.Method+" "+r.Path)
	}
	assert.ElementsMatch(t, served, documented)
}

func TestOpenAPISaysWhichRoutesAskForAKey(t *testing.T) {
	file := document(t)
	var doc struct {
		Paths map[string]map[string]struct {
			Security  *[]any
			Responses map[string]any
		}
	}
	require.NoError(t, yaml.Unmarshal(file, &doc))
	stars := strings.NewReplacer("{file}", "*")
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			free := operation.Security != nil && len(*operation.Security) == 0
			assert.Equal(t, open[stars.Replace(path)], free, "%s %s", method, path)
			assert.Equal(t, !free, operation.Responses["401"] != nil, "%s %s", method, path)
		}
	}
}

func TestOpenAPINamesExactlyTheSpeechFields(t *testing.T) {
	file := document(t)
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(file, &doc))
	request := doc.Components.Schemas["SpeechRequest"].Properties
	assert.ElementsMatch(t, api.SpeechFields(), slices.Collect(maps.Keys(request)))
	var formats []string
	for _, f := range audio.Formats() {
		formats = append(formats, f.Name)
	}
	assert.Equal(t, formats, request["response_format"].Enum)
}

func TestOpenAPINamesExactlyTheFieldsOfOtherAPIs(t *testing.T) {
	file := document(t)
	type properties map[string]struct{ Properties map[string]any }
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name   string
				Schema struct{ Enum []string }
			}
		}
		Components struct {
			Schemas map[string]struct{ Properties properties }
		}
	}
	require.NoError(t, yaml.Unmarshal(file, &doc))
	request := doc.Components.Schemas["ElevenSpeechRequest"].Properties
	assert.ElementsMatch(t, api.ElevenFields(), slices.Collect(maps.Keys(request)))
	assert.ElementsMatch(t, api.ElevenSettings(), slices.Collect(maps.Keys(request["voice_settings"].Properties)))
	assert.ElementsMatch(t, api.OlderFields(), slices.Collect(maps.Keys(doc.Components.Schemas["OlderRequest"].Properties)))
	formats := doc.Paths["/v1/text-to-speech/{voice}"]["post"].Parameters[1].Schema.Enum
	require.NotEmpty(t, formats)
	for _, name := range formats {
		assert.True(t, api.ElevenFormat(name), name)
	}
}
