package jobs_test

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"barkd/server/jobs"
)

// steal makes a job that of another worker, as a worker does that gets its message anew.
func steal(t *testing.T, url, id string) {
	t.Helper()
	conn, err := nats.Connect(url)
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	records, err := js.KeyValue(t.Context(), "barkd-jobs")
	require.NoError(t, err)
	entry, err := records.Get(t.Context(), id)
	require.NoError(t, err)
	var job jobs.Job
	require.NoError(t, json.Unmarshal(entry.Value(), &job))
	job.Worker = "thief"
	text, err := json.Marshal(job)
	require.NoError(t, err)
	_, err = records.Update(t.Context(), id, text, entry.Revision())
	require.NoError(t, err)
}
