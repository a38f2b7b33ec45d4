package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestComposeFileIsValidAndItsFilesAreThere(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../compose/compose.yaml"}, cli.WithConsistency(true), cli.WithNormalization(true))
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	servers := 0
	for name, service := range project.Services {
		for _, v := range service.Volumes {
			if v.Type == "bind" {
				assert.FileExists(t, v.Source, name)
			}
		}
		if !strings.HasPrefix(name, "barkd") {
			continue
		}
		servers++
		assert.FileExists(t, filepath.Join(service.Build.Context, service.Build.Dockerfile))
		assert.Equal(t, ":8002", *service.Environment["AGENT_ADDR"], "haproxy.cfg asks there")
		assert.Equal(t, name+":8000", *project.Services["haproxy"].Environment["BARKD_"+strings.TrimPrefix(name, "barkd")])
		assert.Equal(t, "nats://nats:4222", *service.Environment["JOBS_NATS"])
		require.Contains(t, project.Services, "nats")
		scraped, err := os.ReadFile("../prometheus/prometheus.yml")
		require.NoError(t, err)
		assert.Contains(t, string(scraped), `"`+name+`:8000"`)
	}
	assert.Equal(t, 3, servers)
}
