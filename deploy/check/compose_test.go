package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// composed loads a compose file as docker does.
func composed(t *testing.T, path string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{path}, cli.WithConsistency(true), cli.WithNormalization(true))
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	return project
}

// builtFrom asserts that the service's image is built from a file that takes its arguments.
func builtFrom(t *testing.T, build *types.BuildConfig) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(build.Context, build.Dockerfile))
	require.NoError(t, err)
	for name := range build.Args {
		assert.Regexp(t, `(?m)^ARG `+name+`=`, string(text))
	}
}

func TestGPUComposeFileReservesEveryGPU(t *testing.T) {
	service := composed(t, "../compose/gpu.yaml").Services["barkd"]
	builtFrom(t, service.Build)
	assert.Empty(t, service.Build.Args, "Dockerfile's own are those for GPUs")
	assert.Equal(t, []types.DeviceRequest{{Driver: "nvidia", Count: -1, Capabilities: []string{"gpu"}}}, service.Deploy.Resources.Reservations.Devices)
	for _, v := range service.Volumes {
		assert.Equal(t, "volume", v.Type)
	}
}

func TestComposeFileIsValidAndItsFilesAreThere(t *testing.T) {
	project := composed(t, "../compose/compose.yaml")
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
		builtFrom(t, service.Build)
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
