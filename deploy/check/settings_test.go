package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

func TestEverySettingIsOneThatTheServerHas(t *testing.T) {
	binary := os.Getenv("BARKD_BIN")
	if binary == "" {
		t.Skip("BARKD_BIN does not name the program; 'make deploy-test' does")
	}
	help, err := exec.Command(binary, "serve", "--help").Output()
	require.NoError(t, err)
	known := map[string]bool{"HF_ENDPOINT": true, "HF_TOKEN": true} // of pull
	for _, one := range regexp.MustCompile(`\(\$([A-Z_0-9]+)\)`).FindAllSubmatch(help, -1) {
		known[string(one[1])] = true
	}
	var used []string
	for _, e := range deployment(t, render(t, cases(t)["all"])).Spec.Template.Spec.Containers[0].Env {
		used = append(used, e.Name)
	}
	var compose struct {
		Barkd struct{ Environment map[string]string } `json:"x-barkd"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(file(t, "../compose/compose.yaml")), &compose))
	for name := range compose.Barkd.Environment {
		used = append(used, name)
	}
	for _, text := range []string{file(t, "../Dockerfile"), file(t, filepath.Join("..", "systemd", "barkd.service"))} {
		for _, one := range regexp.MustCompile(`\b(BARKD_MODELS|CACHE_STATE|LOG_FORMAT|[A-Z]+_[A-Z_]+)=`).FindAllStringSubmatch(text, -1) {
			used = append(used, one[1])
		}
	}
	assert.Greater(t, len(used), 15)
	for _, name := range used {
		assert.True(t, known[name], "the server has no setting %s", name)
	}
}
