package mock_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/cgo/mock"
)

func load(t *testing.T, opts mock.Options, id string) cgo.Model {
	t.Helper()
	src, err := mock.Resolve(id)
	require.NoError(t, err)
	m, err := mock.New(opts).Load(t.Context(), src, cgo.LoadOptions{})
	require.NoError(t, err)
	return m
}

func TestPublishedModelsHaveTheirRealSizes(t *testing.T) {
	// Three transformers with tied tables once, and the codec's decoder, in f32.
	for id, params := range map[string]int64{
		"suno/bark-small": 389_557_248 + 7_423_345 + 8*1024*128,
		"suno/bark":       1_085_739_008 + 7_423_345 + 8*1024*128,
	} {
		assert.Equal(t, 4*params, load(t, mock.Options{}, id).Memory().WeightsBytes, id)
	}
	session, err := load(t, mock.Options{}, "suno/bark-small").NewSession(cgo.SessionOptions{})
	require.NoError(t, err)
	assert.EqualValues(t, 36*1024*1024, session.Memory().KVBytes, "36 KiB for each of 1024 positions")
}

func TestModelsAreOfDifferentSizes(t *testing.T) {
	sizes := map[int64]string{}
	for _, id := range mock.Models() {
		sizes[load(t, mock.Options{}, id).Memory().TotalBytes] = id
	}
	assert.Len(t, sizes, 4)
}

func TestNumberedCopiesAreModelsOfTheirOwn(t *testing.T) {
	first, last := load(t, mock.Options{}, "mock/small-1"), load(t, mock.Options{}, "mock/small-999")
	assert.Equal(t, "mock/small-1", first.Info().Name)
	assert.Equal(t, "mock/small-999", last.Info().Name)
	assert.Equal(t, load(t, mock.Options{}, "suno/bark-small").Memory(), last.Memory())
	for _, id := range []string{"mock/small-0", "mock/small-1000", "mock/small-01", "mock/small-+1", "mock/small-"} {
		_, err := mock.Resolve(id)
		assert.ErrorIs(t, err, cgo.ErrNotFound, id)
	}
}

func TestTimeScaleStretchesLoadsAndSpeech(t *testing.T) {
	took := func(scale float64) (loading, speaking time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			m := load(t, mock.Options{TimeScale: scale}, "suno/bark-small")
			loading = time.Since(start)
			speaking = speak(t, m, "Hello, world!")
		})
		return loading, speaking
	}
	loading, speaking := took(1)
	assert.InDelta(t, 1.06, loading.Seconds(), 0.1, "1.6 GB from a disk")
	assert.Greater(t, speaking, 3*time.Second)
	assert.Less(t, speaking, 30*time.Second)
	tenth, tenthSpeaking := took(0.1)
	assert.InEpsilon(t, loading.Seconds()/10, tenth.Seconds(), 0.01)
	assert.InEpsilon(t, speaking.Seconds()/10, tenthSpeaking.Seconds(), 0.01)
	none, noneSpeaking := took(0)
	assert.Zero(t, none)
	assert.Zero(t, noneSpeaking)
}

// speak returns the simulated time of one request and checks that the stages' times add up to it.
func speak(t *testing.T, m cgo.Model, text string) time.Duration {
	t.Helper()
	session, err := m.NewSession(cgo.SessionOptions{})
	require.NoError(t, err)
	req, err := m.Defaults(cgo.RulesSuno)
	require.NoError(t, err)
	req.Text = text
	start := time.Now()
	stats, err := session.Synthesize(t.Context(), req, cgo.Sink{})
	require.NoError(t, err)
	elapsed := time.Since(start)
	var sum float64
	for _, ms := range stats.StageMS {
		sum += ms
	}
	assert.InDelta(t, elapsed.Seconds()*1000, sum, 1)
	return elapsed
}

func TestCancelEndsAWaitAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, err := mock.Resolve("suno/bark")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err = mock.New(mock.Options{TimeScale: 1}).Load(ctx, src, cgo.LoadOptions{})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 1500*time.Millisecond, time.Since(start))
	})
}

func TestLongerTextIsLongerAudioUpToTheLimit(t *testing.T) {
	m := load(t, mock.Options{}, "suno/bark-small")
	session, err := m.NewSession(cgo.SessionOptions{})
	require.NoError(t, err)
	req, err := m.Defaults(cgo.RulesSuno)
	require.NoError(t, err)
	var samples []int64
	sentence := "A sentence that is a good deal longer than the first. "
	for _, text := range []string{"Short.", sentence, strings.Repeat(sentence, 50)} {
		req.Text = text
		stats, err := session.Synthesize(t.Context(), req, cgo.Sink{})
		require.NoError(t, err)
		samples = append(samples, stats.Samples)
	}
	assert.Less(t, samples[0], samples[1])
	assert.Less(t, samples[1], samples[2])
	assert.LessOrEqual(t, float64(samples[2]), 24000*768/49.9, "768 tokens")
}

func TestAudioIsAudibleAndInRange(t *testing.T) {
	m := load(t, mock.Options{}, "barkd/tiny")
	session, err := m.NewSession(cgo.SessionOptions{})
	require.NoError(t, err)
	req, err := m.Defaults(cgo.RulesSuno)
	require.NoError(t, err)
	req.Text = "Audible"
	var energy float64
	var peak float32
	var n int
	_, err = session.Synthesize(t.Context(), req, cgo.Sink{Audio: func(pcm []float32) error {
		for _, x := range pcm {
			peak = max(peak, x, -x)
			energy += float64(x) * float64(x)
		}
		n += len(pcm)
		return nil
	}})
	require.NoError(t, err)
	assert.Greater(t, energy/float64(n), 0.005)
	assert.LessOrEqual(t, peak, float32(1))
}
