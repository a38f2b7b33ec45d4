package hub

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const commit = "1dbd7a128513b8ae4a4e2130fed57b7ac9da5bcd"

var (
	sha256Hex = strings.Repeat("ab", 32)
	sha1Hex   = strings.Repeat("cd", 20)
)

func TestListingOfTheHubIsRead(t *testing.T) {
	body := `{"_id":"x","id":"suno/bark-small","sha":"` + commit + `","gated":"auto","tags":["a"],"siblings":[
		{"rfilename":"config.json","blobId":"` + sha1Hex + `","size":8806},
		{"rfilename":"pytorch_model.bin","blobId":"` + sha1Hex + `","size":134,"lfs":{"sha256":"` + sha256Hex + `","size":1680000000,"pointerSize":134}},
		{"rfilename":"terse.npy"}]}`
	repo, err := parseListing([]byte(body), "suno/bark-small", "main")
	require.NoError(t, err)
	assert.Equal(t, Repo{ID: "suno/bark-small", Revision: "main", Commit: commit, Files: []File{
		{Path: "config.json", Size: 8806, GitSHA1: sha1Hex},
		{Path: "pytorch_model.bin", Size: 1680000000, SHA256: sha256Hex},
		{Path: "terse.npy", Size: -1},
	}}, repo)
	assert.False(t, repo.Files[2].known())
}

func TestListingThatCannotBeIsRefused(t *testing.T) {
	for _, body := range []string{
		"", "null", "[]", "<html>", `{"sha":5}`, `{"sha":"main","siblings":[]}`, `{"sha":"../../x"}`,
		`{"sha":"` + commit + `","siblings":[{"rfilename":""}]}`,
		`{"sha":"` + commit + `","siblings":[{"rfilename":"a"},{"rfilename":"a"}]}`,
		`{"sha":"` + commit + `","siblings":[{"rfilename":"a","size":-2}]}`,
		`{"sha":"` + commit + `","siblings":[{"rfilename":"a","size":9e15}]}`,
		`{"sha":"` + commit + `","siblings":[{"rfilename":"a","blobId":"../../../x"}]}`,
		`{"sha":"` + commit + `","siblings":[{"rfilename":"a","lfs":{"sha256":"../../../x"}}]}`,
	} {
		_, err := parseListing([]byte(body), "a/b", "main")
		assert.Error(t, err, body)
	}
}

func TestHeadersNameTheContentNotTheRedirect(t *testing.T) {
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	large, err := File{Path: "a", Size: -1}.withHeader(header("X-Linked-Etag", `"`+sha256Hex+`"`, "X-Linked-Size", "77", "ETag", `"other"`), 1200)
	require.NoError(t, err)
	assert.Equal(t, File{Path: "a", Size: 77, SHA256: sha256Hex}, large)
	small, err := File{Path: "a", Size: -1}.withHeader(header("ETag", `W/"`+sha1Hex+`"`), 12)
	require.NoError(t, err)
	assert.Equal(t, File{Path: "a", Size: 12, GitSHA1: sha1Hex}, small)

	for _, h := range []http.Header{header(), header("ETag", `"../x"`), header("ETag", `".hidden"`), header("ETag", sha1Hex, "X-Linked-Size", "x"),
		header("ETag", sha1Hex, "X-Linked-Size", "-7")} {
		_, err := File{Path: "a", Size: -1}.withHeader(h, 5)
		assert.Error(t, err, "%v", h)
	}
	_, err = File{Path: "a", Size: -1}.withHeader(header("ETag", sha1Hex), -1)
	assert.Error(t, err, "no size")
}

func TestSelectionTakesOneSetOfWeights(t *testing.T) {
	texts := "config.json vocab.txt "
	for name, c := range map[string]struct{ has, want, err string }{
		"safetensors first": {texts + "model.safetensors pytorch_model.bin text_2.pt coarse_2.pt fine_2.pt flax_model.msgpack", texts + "model.safetensors", ""},
		"pickle":            {texts + "pytorch_model.bin text_2.pt", texts + "pytorch_model.bin", ""},
		"shards": {texts + "model.safetensors.index.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors pytorch_model.bin",
			texts + "model.safetensors.index.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors", ""},
		"pickle shards": {texts + "pytorch_model.bin.index.json pytorch_model-00001-of-00001.bin", texts + "pytorch_model.bin.index.json pytorch_model-00001-of-00001.bin", ""},
		"missing shard": {texts + "model.safetensors.index.json model-00001-of-00002.safetensors", "", "has 1 of its 2 files"},
		"no shard":      {texts + "model.safetensors.index.json", "", "has 0 of its 1 files"},
		"voices": {texts + "pytorch_model.bin speaker_embeddings/v2/a_fine_prompt.npy speaker_embeddings/b.npz speaker_embeddings/README.md voices/c.npz",
			texts + "pytorch_model.bin speaker_embeddings/v2/a_fine_prompt.npy speaker_embeddings/b.npz", ""},
		"suno large":   {"text.pt coarse.pt fine.pt text_2.pt coarse_2.pt fine_2.pt encodec_24khz-d7cc33bc.th vocab.txt", "text_2.pt coarse_2.pt fine_2.pt encodec_24khz-d7cc33bc.th vocab.txt", ""},
		"suno small":   {"text.pt coarse.pt fine.pt text_2.pt encodec_24khz-d7cc33bc.th", "text.pt coarse.pt fine.pt encodec_24khz-d7cc33bc.th", ""},
		"suno, no ear": {"text_2.pt coarse_2.pt fine_2.pt", "", "not EnCodec's"},
		"no weights":   {texts + "README.md", "", "no weights of a Bark model"},
		"no config":    {"vocab.txt model.safetensors", "", "no config.json"},
		"no vocab":     {"config.json model.safetensors", "", "neither vocab.txt nor tokenizer.json"},
	} {
		t.Run(name, func(t *testing.T) {
			var files []File
			for _, p := range strings.Fields(c.has) {
				files = append(files, File{Path: p})
			}
			chosen, err := selectBark("org/x", files)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			var got []string
			for _, f := range chosen {
				got = append(got, f.Path)
			}
			assert.ElementsMatch(t, strings.Fields(c.want), got)
			assert.True(t, slices.IsSorted(got))
		})
	}
}

func TestRedirectNeverLeavesEncryption(t *testing.T) {
	request := func(address string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, address, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer x")
		return r
	}
	hub := []*http.Request{request("https://huggingface.co/a")}
	assert.ErrorIs(t, checkRedirect(request("http://huggingface.co/a"), hub), ErrHostile)
	for address, kept := range map[string]bool{
		"https://huggingface.co/b":         true,
		"https://cdn-lfs.huggingface.co/b": false,
		"https://huggingface.co:8443/b":    false,
		"https://evil.example/b":           false,
	} {
		next := request(address)
		require.NoError(t, checkRedirect(next, hub))
		assert.Equal(t, kept, next.Header.Get("Authorization") != "", address)
	}
	back := request("https://huggingface.co/c")
	require.NoError(t, checkRedirect(back, append(hub, request("https://evil.example/b"))))
	assert.Empty(t, back.Header.Get("Authorization"), "not even on the way back")
	assert.ErrorIs(t, checkRedirect(back, make([]*http.Request, maxRedirects)), ErrHostile)
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(`{"sha":"` + commit + `","siblings":[{"rfilename":"config.json","blobId":"` + sha1Hex + `","size":8806}]}`))
	f.Add([]byte(`{"sha":"` + commit + `","siblings":[{"rfilename":"pytorch_model.bin","lfs":{"sha256":"` + sha256Hex + `","size":5}},{"rfilename":"vocab.txt"}]}`))
	f.Add([]byte(`{"sha":"` + commit + `","siblings":[{"rfilename":"speaker_embeddings/../x.npy","size":1e3,"lfs":null}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		repo, err := parseListing(body, "org/name", "main")
		if err != nil {
			return
		}
		for _, file := range repo.Files {
			if strings.HasPrefix(file.Path, "/") || slices.Contains(strings.Split(file.Path, "/"), "..") || strings.ContainsAny(file.Path, "\\\x00") {
				t.Fatalf("path %q", file.Path)
			}
			if b := file.Blob(); strings.ContainsAny(b, "/\\.") {
				t.Fatalf("blob %q", b)
			}
			if file.Size < -1 || file.Size > maxFileBytes {
				t.Fatalf("size %d", file.Size)
			}
		}
		if chosen, err := selectBark("org/name", repo.Files); err == nil && len(chosen) > len(repo.Files) {
			t.Fatal("more files than there are")
		}
	})
}
