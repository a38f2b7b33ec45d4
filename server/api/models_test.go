package api_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestModelsAreListedAndFoundByIDsWithASlash(t *testing.T) {
	s := newSite(t, "a", "b")
	var list struct {
		Object string
		Data   []struct {
			ID, Object string
			Voices     int
		}
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/models", "").body, &list))
	assert.Equal(t, "list", list.Object)
	assert.Len(t, list.Data, 2)
	for _, path := range []string{"suno/bark", "suno%2Fbark"} {
		r := s.do(t, "GET", "/v1/models/"+path, "")
		assert.Equal(t, 200, r.status)
		assert.Contains(t, string(r.body), `"id":"suno/bark"`)
	}
	assert.Equal(t, "model_not_found", deref(s.do(t, "GET", "/v1/models/suno/nope", "").failure(t).Code))
	assert.Equal(t, 400, s.do(t, "GET", "/v1/models/%FF", "").status)
}

func TestVoicesAreListedWithDefaultAndAliases(t *testing.T) {
	s := newSite(t, "v2/en_speaker_6", "v2/en_speaker_9")
	var got struct {
		Voices  []string
		Default string
		Aliases map[string]string
	}
	require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/audio/voices?model=suno%2Fbark", "").body, &got))
	assert.Equal(t, []string{"v2/en_speaker_6", "v2/en_speaker_9"}, got.Voices)
	assert.Equal(t, "v2/en_speaker_6", got.Default)
	assert.Equal(t, "v2/en_speaker_9", got.Aliases["nova"])
	assert.Contains(t, string(s.do(t, "GET", "/v1/audio/voices?model=barkd/tiny", "").body), `"voices":[]`)
	assert.Equal(t, 404, s.do(t, "GET", "/v1/audio/voices?model=x", "").status)
	assert.Contains(t, string(s.do(t, "GET", "/v1/audio/voices", "").body), `"model":"suno/bark"`, "the default model")
}
