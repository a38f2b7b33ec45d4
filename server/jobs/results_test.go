package jobs_test

import (
	"io"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/jobs"
)

func TestResultsAreKeptInAFolderOrInS3(t *testing.T) {
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("speech"))
	s3 := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(s3.Close)
	env := func(name string) string {
		return map[string]string{"AWS_ENDPOINT_URL": s3.URL, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}[name]
	}
	for _, where := range []string{t.TempDir() + "/new/folder", "s3://speech", "s3://speech/some/prefix/"} {
		r, err := jobs.OpenResults(t.Context(), where, env)
		require.NoError(t, err, where)
		_, _, err = r.Get(t.Context(), "absent")
		require.ErrorIs(t, err, jobs.ErrNotFound, where)
		for _, text := range []string{"first", "second, longer"} {
			require.NoError(t, r.Put(t.Context(), "id", "audio/wav", strings.NewReader(text), int64(len(text))))
			from, size, err := r.Get(t.Context(), "id")
			require.NoError(t, err)
			got, err := io.ReadAll(from)
			require.NoError(t, err)
			require.NoError(t, from.Close())
			assert.Equal(t, text, string(got), where)
			assert.EqualValues(t, len(text), size, where)
		}
	}
	object, err := backend.HeadObject("speech", "some/prefix/id")
	require.NoError(t, err)
	assert.Equal(t, "audio/wav", object.Metadata["Content-Type"])
}

func TestBadPlacesForResultsAreNamed(t *testing.T) {
	s3 := httptest.NewServer(gofakes3.New(s3mem.New()).Server())
	t.Cleanup(s3.Close)
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for where, want := range map[string]string{
		"s3://": "must be s3://bucket", "s3://absent": "no bucket absent", file: "not a directory",
	} {
		_, err := jobs.OpenResults(t.Context(), where, func(name string) string {
			return map[string]string{"AWS_ENDPOINT_URL": s3.URL, "AWS_REGION": "us-east-1"}[name]
		})
		assert.ErrorContains(t, err, want, where)
	}
	_, err := jobs.OpenResults(t.Context(), "s3://b", func(string) string { return "nowhere" })
	assert.ErrorContains(t, err, "AWS_ENDPOINT_URL")
}
