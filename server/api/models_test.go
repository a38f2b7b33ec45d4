package api_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

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

func TestModelsSayWhetherTheyAreInMemory(t *testing.T) {
	s := openSite(t, settings{faults: `{"rules":[{"fault":"load_hangs","model":"suno/*"}]}`})
	require.Equal(t, 200, s.do(t, "POST", "/cache/preload/barkd/tiny", "").status)
	ctx, cancel := context.WithCancel(t.Context())
	var loading sync.WaitGroup
	loading.Go(func() { assert.Error(t, s.pool.Preload(ctx, "suno/bark", nil)) })
	defer loading.Wait()
	defer cancel()
	residency := func(id string) string {
		var m struct{ Residency string }
		require.NoError(t, json.Unmarshal(s.do(t, "GET", "/v1/models/"+id, "").body, &m))
		return m.Residency
	}
	require.Eventually(t, func() bool { return residency("suno/bark") == "loading" }, 10*time.Second, time.Millisecond)
	assert.Equal(t, "resident", residency("barkd/tiny"))
	require.Equal(t, 200, s.do(t, "DELETE", "/cache/models/barkd/tiny", "").status)
	assert.Equal(t, "absent", residency("barkd/tiny"))
	assert.Contains(t, string(s.do(t, "GET", "/v1/models", "").body), `"residency":"loading"`)
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
