package speech_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"barkd/cgo"
	"barkd/server/speech"
	"barkd/server/speech/speechtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var long = strings.TrimSpace(strings.Repeat(sentence+" ", 4))

// house is a service over one fake model.
type house struct {
	*speech.Service
	model  *speechtest.Model
	models *speechtest.Models
}

func newHouse(t *testing.T, voices ...string) house {
	t.Helper()
	model := speechtest.NewModel("suno/bark", voices...)
	models := speechtest.NewModels(model)
	t.Cleanup(func() {
		sessions, voices := model.Live()
		assert.Zero(t, sessions, "live sessions")
		assert.Zero(t, voices, "live voices")
		assert.Zero(t, models.Leases(), "leases")
	})
	return house{speech.NewService(models, speech.NewAdmission(speech.Limits{Running: 1, Queued: 2, PerModel: 2}), zerolog.Nop()), model, models}
}

func (h house) say(t *testing.T, req speech.Request) (speech.Result, []float32) {
	t.Helper()
	var pcm []float32
	req.Model = "suno/bark"
	result, err := h.Speak(context.Background(), req, speech.Sink{
		Audio: func(part []float32) error { pcm = append(pcm, part...); return nil },
	})
	require.NoError(t, err)
	return result, pcm
}

func seed(n uint64) *uint64 { return &n }

func TestOnePieceIsExactlyOneGeneration(t *testing.T) {
	h := newHouse(t)
	text := " Hello.\nWorld.  "
	result, pcm := h.say(t, speech.Request{Text: text, Seed: seed(7)})
	requests := h.model.Requests()
	require.Len(t, requests, 1)
	assert.Equal(t, text, requests[0].Text)
	assert.EqualValues(t, 7, requests[0].Seed)
	assert.Nil(t, requests[0].Voice)
	assert.Len(t, pcm, len(text)*speechtest.SamplesPerRune)
	assert.EqualValues(t, len(pcm), result.Samples)
}

func TestPiecesAreJoinedWithAQuarterSecondOfSilence(t *testing.T) {
	h := newHouse(t)
	result, pcm := h.say(t, speech.Request{Text: long})
	require.Equal(t, 4, result.Pieces)
	spoken := len(sentence) * speechtest.SamplesPerRune
	require.Len(t, pcm, 4*spoken+3*6000)
	for i, x := range pcm {
		inPiece := i % (spoken + 6000)
		require.Equal(t, inPiece < spoken, x != 0, "sample %d", i)
	}
	assert.EqualValues(t, len(pcm), result.Samples)
}

func TestFirstPieceLendsItsVoiceToTheOthers(t *testing.T) {
	h := newHouse(t)
	h.say(t, speech.Request{Text: long})
	requests := h.model.Requests()
	require.Len(t, requests, 4)
	assert.Nil(t, requests[0].Voice)
	for _, r := range requests[1:] {
		voice := r.Voice.(*speechtest.Voice)
		assert.Same(t, requests[1].Voice, r.Voice)
		assert.Equal(t, []int32([]rune(sentence)), voice.Arrays.Semantic)
		assert.Len(t, voice.Arrays.Fine, 8)
	}
}

func TestGivenVoiceSpeaksAllPieces(t *testing.T) {
	h := newHouse(t, "v2/en_speaker_6")
	result, _ := h.say(t, speech.Request{Text: long, Voice: speech.VoiceChoice{Name: "alloy"}})
	assert.Equal(t, "v2/en_speaker_6", result.Voice)
	for _, r := range h.model.Requests() {
		assert.Equal(t, "v2/en_speaker_6", r.Voice.(*speechtest.Voice).Name)
	}
}

func TestPreviousPieceIsTheHistoryIfAskedFor(t *testing.T) {
	for _, first := range []string{"", "v2/en_speaker_6"} {
		h := newHouse(t, "v2/en_speaker_6")
		text := "The first sentence of this text is short, friends. Then the second one, which says rather more than it. " + long
		h.say(t, speech.Request{Text: text, History: speech.HistoryPrevious, Voice: speech.VoiceChoice{Name: first}})
		requests := h.model.Requests()
		require.Len(t, requests, 6)
		if first != "" {
			assert.Equal(t, first, requests[0].Voice.(*speechtest.Voice).Name)
		}
		for i, r := range requests[1:] {
			assert.Equal(t, []int32([]rune(requests[i].Text)), r.Voice.(*speechtest.Voice).Arrays.Semantic, "piece %d", i+1)
		}
	}
}

func TestPieceThatSaidNothingIsNoVoice(t *testing.T) {
	h := newHouse(t)
	h.model.BadVoice = true
	result, _ := h.say(t, speech.Request{Text: long})
	assert.Equal(t, 4, result.Pieces)
	assert.Nil(t, h.model.Requests()[3].Voice)
}

func TestPieceSeedsDifferAndFollowFromTheRequest(t *testing.T) {
	seen := map[uint64]bool{}
	for i := range 1000 {
		seen[speech.PieceSeed(7, i)] = true
	}
	assert.Len(t, seen, 1000)
	assert.EqualValues(t, 7, speech.PieceSeed(7, 0))
	assert.NotEqual(t, speech.PieceSeed(7, 1), speech.PieceSeed(8, 1))
}

func TestHFRulesNeverCut(t *testing.T) {
	h := newHouse(t)
	h.say(t, speech.Request{Text: long + " ", Rules: cgo.RulesHF})
	require.Len(t, h.model.Requests(), 1)
	assert.Equal(t, long+" ", h.model.Requests()[0].Text)
}

func TestSamplingOverridesDefaultsOnly(t *testing.T) {
	h := newHouse(t)
	zero, k := float32(0), int32(50)
	h.say(t, speech.Request{Text: "Hi.", Sampling: speech.SamplingChoice{Semantic: &zero, TopK: &k}, MaxSemanticTokens: 9})
	r := h.model.Requests()[0]
	assert.Equal(t, cgo.Sampling{Temperature: 0, TopP: 1, TopK: 50, MinEOSP: 0.2}, r.Semantic)
	assert.Equal(t, cgo.Sampling{Temperature: 0.7, TopP: 1, TopK: 50}, r.Coarse)
	assert.Equal(t, cgo.Sampling{Temperature: 0.5, TopP: 1}, r.Fine)
	assert.Equal(t, 9, r.MaxSemanticTokens)
}

func TestWrongInputIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		req   speech.Request
		param string
	}{
		"empty":         {speech.Request{Text: ""}, "input"},
		"white space":   {speech.Request{Text: " \n"}, "input"},
		"control only":  {speech.Request{Text: "\x00\x01"}, "input"},
		"invalid UTF-8": {speech.Request{Text: "a\xff"}, "input"},
		"unknown voice": {speech.Request{Text: "a", Voice: speech.VoiceChoice{Name: "nobody"}}, "voice"},
		"bad arrays":    {speech.Request{Text: "a", Voice: speech.VoiceChoice{Arrays: &cgo.VoiceArrays{}}}, "voice"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, "v2/en_speaker_6")
			c.req.Model = "suno/bark"
			_, err := h.Speak(context.Background(), c.req, speech.Sink{})
			var input *speech.InputError
			require.ErrorAs(t, err, &input)
			assert.Equal(t, c.param, input.Param)
		})
	}
}

func TestFailuresReleaseEverything(t *testing.T) {
	boom := errors.New("boom")
	for name, sink := range map[string]speech.Sink{
		"start":    {Start: func(speech.Start) error { return boom }},
		"audio":    {Audio: func([]float32) error { return boom }},
		"progress": {Progress: func(speech.Progress) error { return boom }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, "v")
			_, err := h.Speak(context.Background(), speech.Request{Model: "suno/bark", Text: long, Voice: speech.VoiceChoice{Name: "v"}}, sink)
			assert.ErrorIs(t, err, boom)
			running, waiting := h.Load()
			assert.Zero(t, running+waiting)
		})
	}
}

func TestQueueIsBoundedAndSaysWhenToComeBack(t *testing.T) {
	h := newHouse(t)
	entered, release := make(chan struct{}, 9), make(chan struct{})
	h.model.Work = func(context.Context, cgo.Request) error {
		entered <- struct{}{}
		<-release
		return nil
	}
	done := make(chan error, 9)
	speak := func() {
		_, err := h.Speak(context.Background(), speech.Request{Model: "suno/bark", Text: "Hi."}, speech.Sink{})
		done <- err
	}
	for range 3 {
		go speak()
	}
	<-entered
	require.Eventually(t, func() bool { _, waiting := h.Load(); return waiting == 2 }, 5*time.Second, time.Millisecond)

	speak()
	err := <-done
	var full *speech.QueueFullError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, 2, full.Waiting)
	assert.GreaterOrEqual(t, full.RetryAfter, time.Second)

	close(release)
	for range 3 {
		require.NoError(t, <-done)
	}
}

func TestWaitingRequestLeavesWhenItsContextEnds(t *testing.T) {
	h := newHouse(t)
	entered, release := make(chan struct{}), make(chan struct{})
	h.model.Work = func(context.Context, cgo.Request) error {
		close(entered)
		<-release
		return nil
	}
	done := make(chan error, 2)
	go func() {
		_, err := h.Speak(context.Background(), speech.Request{Model: "suno/bark", Text: "Hi."}, speech.Sink{})
		done <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := h.Speak(ctx, speech.Request{Model: "suno/bark", Text: "Hi."}, speech.Sink{})
	require.ErrorIs(t, err, context.Canceled)
	close(release)
	require.NoError(t, <-done)
}

// speakers speak Hi at once in the background, one at a time, each until release; entered has those that began.
func (h house) speakers(n int) (entered chan struct{}, release func(), done chan error) {
	entered, hold := make(chan struct{}, n), make(chan struct{})
	h.model.Work = func(context.Context, cgo.Request) error {
		entered <- struct{}{}
		<-hold
		return nil
	}
	done = make(chan error, n)
	for range n {
		go func() {
			_, err := h.Speak(context.Background(), speech.Request{Model: "suno/bark", Text: "Hi."}, speech.Sink{})
			done <- err
		}()
	}
	return entered, func() { close(hold) }, done
}

func TestWaitingRequestsHoldNoModel(t *testing.T) {
	h := newHouse(t)
	entered, release, done := h.speakers(3)
	<-entered
	require.Eventually(t, func() bool { _, waiting := h.Load(); return waiting == 2 }, 5*time.Second, time.Millisecond)
	assert.EqualValues(t, 1, h.models.Leases())
	release()
	for range 3 {
		require.NoError(t, <-done)
	}
}

func TestRequestsOfAModelThatLoadsLetOthersRun(t *testing.T) {
	h := newHouse(t)
	h.models.All["barkd/tiny"] = speechtest.NewModel("barkd/tiny")
	loaded := make(chan struct{})
	h.models.Loads = map[string]chan struct{}{"suno/bark": loaded}
	_, release, done := h.speakers(2)
	require.Eventually(t, func() bool { _, waiting := h.Load(); return waiting == 2 }, 5*time.Second, time.Millisecond)
	_, err := h.Speak(context.Background(), speech.Request{Model: "barkd/tiny", Text: "Hi."}, speech.Sink{})
	require.NoError(t, err, "one at a time, and it is this one's turn")
	assert.Empty(t, h.model.Requests())
	close(loaded)
	release()
	for range 2 {
		require.NoError(t, <-done)
	}
}

func TestUnknownModelNeedsNoPlace(t *testing.T) {
	h := newHouse(t)
	entered, release, done := h.speakers(1)
	<-entered
	_, err := h.Speak(context.Background(), speech.Request{Model: "no/such", Text: "Hi."}, speech.Sink{})
	require.ErrorIs(t, err, cgo.ErrNotFound)
	release()
	require.NoError(t, <-done)
}

func TestOpenAIVoicesAlwaysMeanTheSame(t *testing.T) {
	names := strings.Fields("alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse")
	presets := []string{"v2/en_speaker_0", "v2/en_speaker_6", "v2/en_speaker_9"}
	aliases := speech.Aliases(presets)
	for _, n := range names {
		assert.Contains(t, presets, aliases[n], n)
	}
	assert.Equal(t, "v2/en_speaker_9", aliases["nova"])
	tiny := speech.Aliases([]string{"rms", "slt"})
	assert.Equal(t, []string{"slt", "slt", "rms"}, []string{tiny["alloy"], tiny["nova"], tiny["onyx"]})
	assert.NotContains(t, speech.Aliases([]string{"alloy", "b"}), "alloy", "the model's own voice wins")
	assert.Empty(t, speech.Aliases(nil))
	assert.Equal(t, "", speech.Default(nil))
	assert.Equal(t, "v2/en_speaker_6", speech.Default(presets))
	assert.Equal(t, "slt", speech.Default([]string{"rms", "slt"}))
	assert.Equal(t, "b", speech.Default([]string{"b", "a"}))
}

func TestOpenAIVoiceOnAModelWithoutVoicesIsNoVoice(t *testing.T) {
	h := newHouse(t)
	result, _ := h.say(t, speech.Request{Text: "Hi.", Voice: speech.VoiceChoice{Name: "alloy"}})
	assert.Empty(t, result.Voice)
	assert.Nil(t, h.model.Requests()[0].Voice)
}

func TestNoneIsNoVoiceEvenWithADefault(t *testing.T) {
	h := newHouse(t, "v2/en_speaker_6")
	h.say(t, speech.Request{Text: "Hi.", Voice: speech.VoiceChoice{Default: true}})
	h.say(t, speech.Request{Text: "Hi.", Voice: speech.VoiceChoice{Name: speech.NoVoice, Default: true}})
	assert.NotNil(t, h.model.Requests()[0].Voice)
	assert.Nil(t, h.model.Requests()[1].Voice)
}

func TestTheFirstPiecesTokensAreTheVoiceThatWasHeard(t *testing.T) {
	h := newHouse(t)
	result, _ := h.say(t, speech.Request{Text: long})
	require.Greater(t, result.Pieces, 1)
	asked := h.model.Requests()
	assert.Equal(t, []int32(asked[0].Text), result.Spoken.Semantic)
	assert.Equal(t, result.Spoken, asked[1].Voice.(*speechtest.Voice).Arrays, "the one that the others had")
	assert.Len(t, result.Spoken.Coarse, 2)
	assert.Len(t, result.Spoken.Fine, 8)
}

func TestAStoredVoiceSpeaksWhereTheModelHasNoneOfItsName(t *testing.T) {
	h := newHouse(t, "own")
	stored := cgo.VoiceArrays{Semantic: []int32{1}, Coarse: [][]int32{{1}}, Fine: [][]int32{{1}}}
	choice := func(name string) speech.VoiceChoice {
		return speech.VoiceChoice{Name: name, Stored: func(asked string) (string, cgo.VoiceArrays, error) {
			if asked != "kept" && asked != "own" {
				return "", cgo.VoiceArrays{}, cgo.ErrNotFound
			}
			return "id-of-" + asked, stored, nil
		}}
	}
	result, _ := h.say(t, speech.Request{Text: "Hi.", Voice: choice("kept")})
	assert.Equal(t, "id-of-kept", result.Voice)
	result, _ = h.say(t, speech.Request{Text: "Hi.", Voice: choice("own")})
	assert.Equal(t, "own", result.Voice, "the model's own comes first")
	result, _ = h.say(t, speech.Request{Text: "Hi.", Voice: choice("nova")})
	assert.Equal(t, "own", result.Voice, "and what OpenAI's names mean")
	asked := h.model.Requests()
	assert.Equal(t, stored, asked[0].Voice.(*speechtest.Voice).Arrays)
	assert.Equal(t, "own", asked[1].Voice.(*speechtest.Voice).Name)
	_, err := h.Speak(t.Context(), speech.Request{Model: "suno/bark", Text: "Hi.", Voice: choice("nobody")}, speech.Sink{})
	assert.ErrorIs(t, err, cgo.ErrNotFound)
	assert.NoError(t, h.CheckVoice(t.Context(), "suno/bark", stored))
	var wrong *speech.InputError
	require.ErrorAs(t, h.CheckVoice(t.Context(), "suno/bark", cgo.VoiceArrays{}), &wrong)
	assert.Equal(t, "voice", wrong.Param)
}
