package check

import (
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEverySettingIsOneThatTheServerHas(t *testing.T) {
	binary := os.Getenv("BARKD_BIN")
	if binary == "" {
		t.Skip("BARKD_BIN does not name the program; 'make deploy-test' does")
	}
	help, err := exec.Command(binary, "serve", "--help").Output()
	require.NoError(t, err)
	known := map[string]bool{"HF_ENDPOINT": true, "HF_TOKEN": true, // of pull
		"NVIDIA_VISIBLE_DEVICES": true, "NVIDIA_DRIVER_CAPABILITIES": true} // of the container runtime
	for _, one := range regexp.MustCompile(`\(\$([A-Z_0-9]+)\)`).FindAllSubmatch(help, -1) {
		known[string(one[1])] = true
	}
	var used []string
	for _, e := range deployment(t, render(t, cases(t)["all"])).Spec.Template.Spec.Containers[0].Env {
		used = append(used, e.Name)
	}
	for _, service := range []types.ServiceConfig{composed(t, "../compose/compose.yaml").Services["barkd1"], composed(t, "../compose/gpu.yaml").Services["barkd"]} {
		for name := range service.Environment {
			used = append(used, name)
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^(ENV|Environment=).*`).FindAllString(file(t, "../../Dockerfile")+file(t, "../systemd/barkd.service"), -1) {
		for _, one := range regexp.MustCompile(`\b(BARKD_MODELS|CACHE_STATE|LOG_FORMAT|[A-Z]+_[A-Z_]+)=`).FindAllStringSubmatch(line, -1) {
			used = append(used, one[1])
		}
	}
	assert.Greater(t, len(used), 15)
	for _, name := range used {
		assert.True(t, known[name], "the server has no setting %s", name)
	}
}
