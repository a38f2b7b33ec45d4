package speech_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/speech"
	"barkd/server/speech/speechtest"
)

// shared is a sharing service over one fake model.
type shared struct {
	*speech.Sharing
	model  *speechtest.Model
	models *speechtest.Models
}

func newShared(t *testing.T, limit int64, voices ...string) shared {
	t.Helper()
	model := speechtest.NewModel("suno/bark", voices...)
	model.Version = "v1"
	models := speechtest.NewModels(model)
	service := speech.NewService(models, speech.NewAdmission(speech.Limits{Running: 4, Queued: 4, PerModel: 4}), zerolog.Nop())
	identify := func(_ context.Context, id string) (string, []string, error) {
		if id != "suno/bark" {
			return "", nil, cgo.ErrNotFound
		}
		return "v1", voices, nil
	}
	t.Cleanup(func() {
		sessions, _ := model.Live()
		assert.Zero(t, sessions)
		assert.Zero(t, models.Leases())
	})
	return shared{speech.NewSharing(service, identify, speech.NewAudioCache(limit)), model, models}
}

// gate stops every piece until it is opened, and tells of each that came.
func (s shared) gate() (came chan struct{}, open func()) {
	came, out := make(chan struct{}, 99), make(chan struct{})
	s.model.Work = func(ctx context.Context, _ cgo.Request) error {
		came <- struct{}{}
		select {
		case <-out:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return came, sync.OnceFunc(func() { close(out) })
}

func (s shared) joined(t *testing.T, n uint64) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Audio().Stats().Joins == n }, 10*time.Second, time.Millisecond)
}

// told is what one sink received.
type told struct {
	samples int
	from    speech.Origin
	result  speech.Result
	err     error
}

func (s shared) say(ctx context.Context, req speech.Request) told {
	var out told
	req.Model = "suno/bark"
	out.result, out.err = s.Speak(ctx, req, speech.Sink{
		Start: func(start speech.Start) error { out.from = start.From; return nil },
		Audio: func(pcm []float32) error { out.samples += len(pcm); return nil },
	})
	return out
}

func TestEqualRequestsShareOneGeneration(t *testing.T) {
	s := newShared(t, 0)
	came, open := s.gate()
	answers := make(chan told, 8)
	speak := func() { answers <- s.say(t.Context(), speech.Request{Text: long, Seed: seed(7)}) }
	go speak()
	<-came
	for range 7 {
		go speak()
	}
	s.joined(t, 7)
	open()
	origins := map[speech.Origin]int{}
	for range 8 {
		a := <-answers
		require.NoError(t, a.err)
		assert.EqualValues(t, a.result.Samples, a.samples, "all of it, from the beginning")
		origins[a.from]++
	}
	assert.Equal(t, map[speech.Origin]int{speech.Made: 1, speech.Joined: 7}, origins)
	assert.Len(t, s.model.Requests(), 4, "four pieces, once")
}

func TestWorkStopsWhenItsLastListenerLeaves(t *testing.T) {
	s := newShared(t, 1<<30)
	came, open := s.gate()
	defer open()
	req := speech.Request{Text: "Hi.", Seed: seed(7)}
	first, leaveFirst := context.WithCancel(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	answers := make(chan told, 2)
	go func() { answers <- s.say(first, req) }()
	<-came
	go func() { answers <- s.say(second, req) }()
	s.joined(t, 1)
	leaveFirst()
	require.ErrorIs(t, (<-answers).err, context.Canceled)
	assert.EqualValues(t, 1, s.models.Leases(), "the other one still listens")
	leaveSecond()
	require.ErrorIs(t, (<-answers).err, context.Canceled)
	assert.Zero(t, s.models.Leases(), "it waited for the end of the work")
	assert.Zero(t, s.Audio().Stats().Entries)

	open()
	require.NoError(t, s.say(t.Context(), req).err, "the next one begins anew")
}

func TestFinishedAudioIsKept(t *testing.T) {
	s := newShared(t, 1<<30)
	made := s.say(t.Context(), speech.Request{Text: long, Seed: seed(7)})
	kept := s.say(t.Context(), speech.Request{ID: "other", Text: long, Seed: seed(7)})
	require.NoError(t, kept.err)
	assert.Equal(t, speech.Kept, kept.from)
	assert.Equal(t, made.samples, kept.samples)
	assert.Equal(t, made.result.Spoken, kept.result.Spoken)
	assert.Equal(t, made.result.Stats, kept.result.Stats)
	assert.Len(t, s.model.Requests(), 4)
	stats := s.Audio().Stats()
	tokens := len(sentence) * (1 + 2 + 8) // of the first piece
	assert.EqualValues(t, 4*(made.samples+tokens), stats.Bytes)
	assert.Equal(t, [3]uint64{1, 0, 1}, [3]uint64{stats.Hits, stats.Joins, stats.Misses})
	assert.Equal(t, stats.Bytes, s.Audio().Clear())
	assert.Equal(t, speech.Made, s.say(t.Context(), speech.Request{Text: long, Seed: seed(7)}).from)
}

func TestWhatMakesOtherAudioIsNotShared(t *testing.T) {
	s := newShared(t, 1<<30, "a", "b")
	zero, k := float32(0), int32(3)
	arrays := &cgo.VoiceArrays{Semantic: []int32{1}, Coarse: [][]int32{{1}, {1}}, Fine: [][]int32{{1}}}
	others := []speech.Request{
		{Text: "Hi."}, {Text: "Hi"}, {Text: "Hi.", Rules: cgo.RulesHF}, {Text: "Hi.", KV: cgo.KVF32}, {Text: "Hi.", MaxSemanticTokens: 5},
		{Text: "Hi.", Voice: speech.VoiceChoice{Name: "a"}}, {Text: "Hi.", Voice: speech.VoiceChoice{Name: "b"}},
		{Text: "Hi.", Voice: speech.VoiceChoice{Arrays: arrays}},
		{Text: "Hi.", Sampling: speech.SamplingChoice{Semantic: &zero}}, {Text: "Hi.", Sampling: speech.SamplingChoice{TopK: &k}},
	}
	for i, req := range others {
		for _, n := range []uint64{1, 2} {
			req.Seed = seed(n)
			a := s.say(t.Context(), req)
			require.NoError(t, a.err)
			assert.Equal(t, speech.Made, a.from, "request %d", i)
		}
	}
	same := []speech.VoiceChoice{{Name: "a"}, {Default: true}, {Name: "alloy"}}
	for _, voice := range same {
		assert.Equal(t, speech.Kept, s.say(t.Context(), speech.Request{Text: "Hi.", Seed: seed(1), Voice: voice}).from, "%+v", voice)
	}
	assert.Equal(t, speech.Made, s.say(t.Context(), speech.Request{Text: "Hi."}).from, "without a seed")
}

func TestAudioOfAnotherModelFileIsNotKept(t *testing.T) {
	s := newShared(t, 1<<30)
	s.model.Version = "v0" // the one in memory is older than the file
	require.NoError(t, s.say(t.Context(), speech.Request{Text: "Hi.", Seed: seed(1)}).err)
	assert.Zero(t, s.Audio().Stats().Entries)
}

func TestFailuresAndPanicsReachAllAndAreNotKept(t *testing.T) {
	for name, fail := range map[string]func(context.Context, cgo.Request) error{
		"error": func(context.Context, cgo.Request) error { return cgo.ErrDevice },
		"panic": func(context.Context, cgo.Request) error { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShared(t, 1<<30)
			s.model.Work = fail
			assert.Error(t, s.say(t.Context(), speech.Request{Text: "Hi.", Seed: seed(1)}).err)
			s.model.Work = nil
			assert.Equal(t, speech.Made, s.say(t.Context(), speech.Request{Text: "Hi.", Seed: seed(1)}).from)
		})
	}
	s := newShared(t, 1<<30)
	var input *speech.InputError
	require.ErrorAs(t, s.say(t.Context(), speech.Request{Text: "a\xff", Seed: seed(1)}).err, &input)
}

func TestSinkThatFailsLeavesTheOthersAlone(t *testing.T) {
	s := newShared(t, 0)
	came, open := s.gate()
	answers := make(chan told, 1)
	req := speech.Request{Model: "suno/bark", Text: "Hi.", Seed: seed(7)}
	go func() { answers <- s.say(t.Context(), req) }()
	<-came
	boom := errors.New("boom")
	failed := make(chan error, 1)
	go func() {
		_, err := s.Speak(t.Context(), req, speech.Sink{Audio: func([]float32) error { return boom }})
		failed <- err
	}()
	s.joined(t, 1)
	open()
	assert.ErrorIs(t, <-failed, boom)
	require.NoError(t, (<-answers).err)
}

func TestSlowListenerBoundsWhatIsKept(t *testing.T) {
	s := newShared(t, 1<<30)
	text := strings.Repeat(sentence+" ", 150) // 75 MB of audio
	listen := make(chan struct{})
	heard := 0
	done := make(chan error, 1)
	go func() {
		_, err := s.Speak(t.Context(), speech.Request{Model: "suno/bark", Text: text, Seed: seed(1)}, speech.Sink{Audio: func(pcm []float32) error {
			<-listen
			heard += len(pcm)
			return nil
		}})
		done <- err
	}()
	made := func() int { return len(s.model.Requests()) }
	require.Eventually(t, func() bool { return made() > 50 }, 30*time.Second, time.Millisecond)
	var before int
	require.Eventually(t, func() bool { b := before; before = made(); return b == before }, 30*time.Second, 50*time.Millisecond)
	assert.Less(t, made(), 75, "the work waits at 32 MB")
	close(listen)
	require.NoError(t, <-done)
	assert.Equal(t, 150, made())
	assert.Equal(t, 150*len(sentence)*speechtest.SamplesPerRune+149*6000, heard)
	assert.Zero(t, s.Audio().Stats().Entries, "its beginning was dropped")
}

func TestAudioCacheDropsTheOldestFirst(t *testing.T) {
	one := int64(4 * 3 * (speechtest.SamplesPerRune + 1 + 2 + 8))
	s := newShared(t, 3*one)
	say := func(n uint64) speech.Origin {
		return s.say(t.Context(), speech.Request{Text: "Hi.", Seed: seed(n)}).from
	}
	for n := range uint64(3) {
		say(n)
	}
	assert.Equal(t, speech.Kept, say(0), "now the newest")
	say(3) // 1 goes
	assert.Equal(t, 3*one, s.Audio().Stats().Bytes)
	assert.Equal(t, []speech.Origin{speech.Kept, speech.Made}, []speech.Origin{say(0), say(1)}) // 2 goes
	assert.Equal(t, one, s.Audio().Free(1))
	assert.Equal(t, 2*one, s.Audio().Free(1<<40))
	assert.EqualValues(t, 5, s.Audio().Stats().Evictions)
}

func TestSharingUnderManyClients(t *testing.T) {
	s := newShared(t, 1<<20)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for n := range 30 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+n)%5 == 0 {
					cancel()
				}
				a := s.say(ctx, speech.Request{Text: fmt.Sprint("Hi ", n%4), Seed: seed(uint64(n % 3))})
				var full *speech.QueueFullError
				if a.err == nil {
					assert.EqualValues(t, a.result.Samples, a.samples)
				} else if !errors.As(a.err, &full) {
					assert.ErrorIs(t, a.err, context.Canceled)
				}
				cancel()
			}
		})
	}
	clients.Wait()
	sessions, voices := s.model.Live()
	assert.Zero(t, sessions+voices+s.models.Leases())
}
