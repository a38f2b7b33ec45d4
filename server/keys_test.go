package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/api"
)

func readKeys(value string) ([]api.Key, []string) {
	var s settings
	return s.keys("API_KEYS", value, api.Allowance{RequestsPerMinute: 7}), s.problems
}

func TestKeysAreAListOrSayWhatTheirBearersMayDo(t *testing.T) {
	digest := "1c54a9d1f3d0b0d5a8d3b1cf9d2d0c2ad8e5b3e1a46e0a2a4e9e1f2d3c4b5a69"
	keys, problems := readKeys("one, sha256:" + digest)
	require.Empty(t, problems)
	assert.Equal(t, api.Key{Name: "key-1", Digest: api.DigestOf("one"), Allowance: api.Allowance{RequestsPerMinute: 7}}, keys[0])
	assert.Equal(t, byte(0x1c), keys[1].Digest[0])
	keys, problems = readKeys(`[one, {name: web, key: two=, priority: 3, requests_per_minute: 0, characters_per_minute: 9, concurrent: 2}, {"sha256": "` + digest + `"}]`)
	require.Empty(t, problems)
	require.Len(t, keys, 3)
	assert.Equal(t, api.Key{Name: "web", Digest: api.DigestOf("two="), Priority: 3,
		Allowance: api.Allowance{CharactersPerMinute: 9, Concurrent: 2}}, keys[1])
	assert.Equal(t, "key-3", keys[2].Name)
}

func TestBadKeysAreNamedButNotShown(t *testing.T) {
	for value, want := range map[string]string{
		"[secret":                                         "no list of keys",
		"[{nam: a, key: secret}]":                         `did you mean "name"`,
		"[{name: a}]":                                     "a key or its sha256",
		"[{key: secret, sha256: secret}]":                 "a key or its sha256",
		"[[secret]]":                                      "neither a key nor a mapping",
		"[{key: secret, priority: secret}]":               "entry 1",
		"[{key: secret, priority: 21}]":                   "from -20 to 20",
		"[{key: secret, concurrent: -1}]":                 "concurrent is -1",
		"[{key: s ecret}]":                                "without blanks",
		"[{name: a b, key: secret}]":                      "without blanks",
		"sha256:secret":                                   "64 hexadecimal digits",
		"secret,other,secret":                             "entry 3: it has the name or the key of entry 1",
		"[{name: a, key: secret}, {name: a, key: other}]": "entry 2: it has the name",
	} {
		_, problems := readKeys(value)
		require.Len(t, problems, 1, value)
		assert.Contains(t, problems[0], want)
		assert.NotContains(t, strings.ReplaceAll(problems[0], `"a b"`, ""), "secret")
	}
}

func TestServerAsksForItsKeys(t *testing.T) {
	s := startServer(t, quick(map[string]string{"API_KEYS": "[{name: web, key: sesame}]", "RATE_LIMIT_REQUESTS": "2"}))
	assert.Contains(t, s.log.String(), "there is no ADMIN_KEY")
	resp, _ := s.post(t, "/v1/audio/speech", `{"model":"barkd/tiny","input":"Hello."}`)
	assert.Equal(t, 401, resp.StatusCode)
	for _, want := range []int{200, 200, 429} {
		req, err := http.NewRequest("POST", s.url+"/v1/audio/speech", strings.NewReader(`{"model":"barkd/tiny","input":"Hello."}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer sesame")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, want, resp.StatusCode)
	}
	assert.NotContains(t, s.log.String(), "sesame")
}

func TestServerWithoutKeysSaysSo(t *testing.T) {
	s := startServer(t, quick(nil))
	assert.Contains(t, s.log.String(), "every program of this machine")
	all := startServer(t, quick(nil), "--host", "0.0.0.0")
	assert.Contains(t, all.log.String(), "everyone who can reach this machine")
}
