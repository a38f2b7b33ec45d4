package check

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	inferencev1 "sigs.k8s.io/gateway-api-inference-extension/api/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

const chartFolder = "../helm/barkd"

// scaledObject has what the chart uses of KEDA's type, whose own module replaces Kubernetes' modules by others.
type scaledObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		ScaleTargetRef  struct{ Name string }
		MinReplicaCount int32
		MaxReplicaCount int32
		CooldownPeriod  int32
		Advanced        struct {
			HorizontalPodAutoscalerConfig struct {
				Behavior autoscalingv2.HorizontalPodAutoscalerBehavior
			}
		}
		Triggers []struct {
			Type, MetricType string
			Metadata         map[string]string
		}
	}
}

// kinds are the types of all that the chart may make.
var kinds = map[string]func() any{
	"apps/v1 Deployment":                       func() any { return new(appsv1.Deployment) },
	"v1 Service":                               func() any { return new(corev1.Service) },
	"v1 ConfigMap":                             func() any { return new(corev1.ConfigMap) },
	"v1 ServiceAccount":                        func() any { return new(corev1.ServiceAccount) },
	"v1 PersistentVolumeClaim":                 func() any { return new(corev1.PersistentVolumeClaim) },
	"policy/v1 PodDisruptionBudget":            func() any { return new(policyv1.PodDisruptionBudget) },
	"rbac.authorization.k8s.io/v1 Role":        func() any { return new(rbacv1.Role) },
	"rbac.authorization.k8s.io/v1 RoleBinding": func() any { return new(rbacv1.RoleBinding) },
	"autoscaling/v2 HorizontalPodAutoscaler":   func() any { return new(autoscalingv2.HorizontalPodAutoscaler) },

	"keda.sh/v1alpha1 ScaledObject":                func() any { return new(scaledObject) },
	"inference.networking.k8s.io/v1 InferencePool": func() any { return new(inferencev1.InferencePool) },
	"gateway.networking.k8s.io/v1 HTTPRoute":       func() any { return new(gatewayv1.HTTPRoute) },
}

// values lays YAML texts over each other.
func values(t *testing.T, texts ...string) map[string]any {
	t.Helper()
	out := map[string]any{}
	for _, text := range texts {
		layer, err := chartutil.ReadValues([]byte(text))
		require.NoError(t, err)
		out = chartutil.CoalesceTables(layer.AsMap(), out)
	}
	return out
}

func file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

// cases are values by name; each is linted, rendered and decoded.
func cases(t *testing.T) map[string]map[string]any {
	gpu := file(t, filepath.Join(chartFolder, "values-gpu.yaml"))
	pool := `inferencePool: { enabled: true, gateway: { name: public, namespace: gateways }, hostnames: [speech.example.org] }`
	return map[string]map[string]any{
		"cpu":  {},
		"gpu":  values(t, gpu),
		"hpa":  values(t, `autoscaling: { engine: hpa }`),
		"keda": values(t, `autoscaling: { engine: keda }`),
		"pool": values(t, pool),
		"all": values(t, gpu, pool, `
nameOverride: speech
imagePullSecrets: [{ name: pull }]
adminKey: { existingSecret: barkd }
models: { hub: { endpoint: "https://hub.example.org", existingSecret: hub }, volume: { create: true, storageClassName: nfs } }
gpu: { runtimeClassName: nvidia }
affinity: { podAntiAffinity: {} }
podAnnotations: { who: me }
autoscaling: { engine: keda }
service: { type: LoadBalancer }`),
		"claim":     values(t, `models: { pull: [], volume: { existingClaim: shared } }`),
		"no budget": values(t, `podDisruptionBudget: { enabled: false }`),
	}
}

// render returns the chart's objects by kind and name, decoded without unknown fields.
func render(t *testing.T, over map[string]any) map[string]any {
	t.Helper()
	c, err := loader.Load(chartFolder)
	require.NoError(t, err)
	files, err := renderFiles(c, over)
	require.NoError(t, err)
	out := make(map[string]any)
	for name, text := range files {
		if strings.HasSuffix(name, ".txt") {
			continue
		}
		for document := range strings.SplitSeq(text, "\n---\n") {
			var head struct {
				metav1.TypeMeta   `json:",inline"`
				metav1.ObjectMeta `json:"metadata"`
			}
			require.NoError(t, yaml.Unmarshal([]byte(document), &head), "%s:\n%s", name, document)
			if head.Kind == "" {
				continue // a template that makes nothing
			}
			kind := head.APIVersion + " " + head.Kind
			require.Contains(t, kinds, kind, name)
			object := kinds[kind]()
			require.NoError(t, yaml.UnmarshalStrict([]byte(document), object), "%s:\n%s", name, document)
			key := head.Kind + " " + head.Name
			require.NotContains(t, out, key)
			out[key] = object
		}
	}
	return out
}

func renderFiles(c *chart.Chart, over map[string]any) (map[string]string, error) {
	capabilities := *chartutil.DefaultCapabilities
	capabilities.KubeVersion = chartutil.KubeVersion{Version: "v1.30.0", Major: "1", Minor: "30"}
	if !chartutil.IsCompatibleRange(c.Metadata.KubeVersion, capabilities.KubeVersion.Version) {
		return nil, fmt.Errorf("the chart is not for %s", capabilities.KubeVersion.Version)
	}
	in, err := chartutil.ToRenderValues(c, over, chartutil.ReleaseOptions{Name: "barkd", Namespace: "speech", IsInstall: true}, &capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true, LintMode: false}.Render(c, in)
}

func TestChartPassesHelmLint(t *testing.T) {
	for name, over := range cases(t) {
		for _, m := range lint.AllWithKubeVersion(chartFolder, over, "speech", &chartutil.KubeVersion{Version: "v1.30.0", Major: "1", Minor: "30"}).Messages {
			if m.Severity > support.InfoSev { // an icon is all it misses
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

func TestEveryCaseRendersToValidObjects(t *testing.T) {
	for name, over := range cases(t) {
		objects := render(t, over)
		t.Logf("%s: %s", name, strings.Join(slices.Sorted(maps.Keys(objects)), ", "))
		d := deployment(t, objects)
		checkPod(t, name, d)
		assert.Equal(t, d.Spec.Selector.MatchLabels, service(t, objects, "").Spec.Selector, name)
	}
}

// deployment is that of the server, whatever its name.
func deployment(t *testing.T, objects map[string]any) *appsv1.Deployment {
	t.Helper()
	for key, object := range objects {
		if d, ok := object.(*appsv1.Deployment); ok && !strings.HasSuffix(key, "-picker") {
			return d
		}
	}
	t.Fatal("no deployment")
	return nil
}

func service(t *testing.T, objects map[string]any, suffix string) *corev1.Service {
	t.Helper()
	s, ok := objects["Service "+deployment(t, objects).Name+suffix].(*corev1.Service)
	require.True(t, ok)
	return s
}

// checkPod checks what every case must have.
func checkPod(t *testing.T, name string, d *appsv1.Deployment) {
	t.Helper()
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	assert.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path, name)
	assert.Equal(t, "/livez", c.LivenessProbe.HTTPGet.Path, name)
	env := make(map[string]string)
	for _, e := range c.Env {
		require.NotContains(t, env, e.Name, name)
		env[e.Name] = e.Value
	}
	var grace int64
	_, err := fmt.Sscan(env["SHUTDOWN_GRACE_SECONDS"], &grace)
	require.NoError(t, err)
	assert.Greater(t, *pod.TerminationGracePeriodSeconds, c.Lifecycle.PreStop.Sleep.Seconds+grace, "%s: killed before it is done", name)
	assert.True(t, *pod.SecurityContext.RunAsNonRoot, name)
	for _, one := range append(pod.InitContainers, c) {
		assert.True(t, *one.SecurityContext.ReadOnlyRootFilesystem, name)
		assert.Equal(t, []corev1.Capability{"ALL"}, one.SecurityContext.Capabilities.Drop, name)
	}
	volumes := make(map[string]bool)
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, m := range c.VolumeMounts {
		assert.True(t, volumes[m.Name], "%s: no volume %s", name, m.Name)
	}
}

func TestTheAdminPortIsApartFromTheService(t *testing.T) {
	objects := render(t, values(t, `service: { type: LoadBalancer }`))
	for _, port := range service(t, objects, "").Spec.Ports {
		assert.Equal(t, "http", port.TargetPort.StrVal)
	}
	admin := service(t, objects, "-admin")
	assert.Equal(t, corev1.ClusterIPNone, admin.Spec.ClusterIP)
	assert.Equal(t, "admin", admin.Spec.Ports[0].TargetPort.StrVal)
}

func TestGPUPodsAskForAGPUAndGoBeforeTheNewOnesCome(t *testing.T) {
	d := deployment(t, render(t, cases(t)["gpu"]))
	limits := d.Spec.Template.Spec.Containers[0].Resources.Limits
	gpus := limits["nvidia.com/gpu"]
	assert.EqualValues(t, 1, gpus.Value())
	assert.NotZero(t, limits.Memory().Value())
	assert.Equal(t, "0", d.Spec.Strategy.RollingUpdate.MaxSurge.String())
	assert.Equal(t, "1", d.Spec.Strategy.RollingUpdate.MaxUnavailable.String())
	cpu := deployment(t, render(t, nil))
	assert.NotContains(t, cpu.Spec.Template.Spec.Containers[0].Resources.Limits, corev1.ResourceName("nvidia.com/gpu"))
}

func TestAnAutoscalerOwnsTheReplicas(t *testing.T) {
	assert.EqualValues(t, 2, *deployment(t, render(t, nil)).Spec.Replicas)
	for _, kind := range []string{"hpa", "keda"} {
		objects := render(t, cases(t)[kind])
		assert.Nil(t, deployment(t, objects).Spec.Replicas, kind)
	}
	scaled := render(t, cases(t)["keda"])["ScaledObject barkd"].(*scaledObject)
	assert.Equal(t, "barkd", scaled.Spec.ScaleTargetRef.Name)
	assert.Contains(t, scaled.Spec.Triggers[0].Metadata["query"], `namespace="speech"`)
}

func TestThePoolPointsAtItsPickerAndTheServers(t *testing.T) {
	objects := render(t, cases(t)["pool"])
	pool := objects["InferencePool barkd"].(*inferencev1.InferencePool)
	d := deployment(t, objects)
	for key, value := range pool.Spec.Selector.MatchLabels {
		assert.Equal(t, string(value), d.Spec.Template.Labels[string(key)])
	}
	assert.EqualValues(t, d.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort, pool.Spec.TargetPorts[0].Number)
	picker := objects["Service barkd-picker"].(*corev1.Service)
	assert.EqualValues(t, pool.Spec.EndpointPickerRef.Name, picker.Name)
	assert.EqualValues(t, pool.Spec.EndpointPickerRef.Port.Number, picker.Spec.Ports[0].Port)
	route := objects["HTTPRoute barkd"].(*gatewayv1.HTTPRoute)
	assert.EqualValues(t, "InferencePool", *route.Spec.Rules[0].BackendRefs[0].Kind)
	assert.EqualValues(t, pool.Name, route.Spec.Rules[0].BackendRefs[0].Name)
}

func TestBadValuesAreRefused(t *testing.T) {
	c, err := loader.Load(chartFolder)
	require.NoError(t, err)
	for text, why := range map[string]string{
		`replicas: 3`:                        "replicas",
		`autoscaling: { engine: magic }`:     "autoscaling",
		`settings: { PORT: "80" }`:           "PORT", // the chart's own
		`settings: { MAX_CACHED_MODELS: 3 }`: "MAX_CACHED_MODELS",
		`models: { pull: ["../x"] }`:         "pull",
		`replicaCount: 0`:                    "replicaCount",
		`inferencePool: { enabled: true }`:   "which Gateway?",
	} {
		_, err := renderFiles(c, values(t, text))
		assert.ErrorContains(t, err, why, text)
	}
}
