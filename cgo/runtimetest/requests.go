package runtimetest

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
)

func tokenizes(t *testing.T, s Subject) {
	s.with(t, func(m cgo.Model) {
		ids, err := m.Tokenize(cgo.RulesSuno, "Hello, world!")
		require.NoError(t, err)
		assert.GreaterOrEqual(t, len(ids), 4)
		same, err := m.Tokenize(cgo.RulesSuno, "  Hello,\tworld!\n")
		require.NoError(t, err)
		assert.Equal(t, ids, same, "white space is not spoken")
		long, err := m.Tokenize(cgo.RulesHF, strings.Repeat("word ", 2000))
		require.NoError(t, err)
		assert.GreaterOrEqual(t, len(long), 2000, "no cut")
		withNUL, err := m.Tokenize(cgo.RulesSuno, "Hello,\x00 world!")
		require.NoError(t, err)
		assert.Equal(t, ids, withNUL, "a NUL ends nothing")
		none, err := m.Tokenize(cgo.RulesHF, "")
		require.NoError(t, err)
		assert.Empty(t, none)
		_, err = m.Tokenize(cgo.Rules(9), "a")
		assert.ErrorIs(t, err, cgo.ErrInvalidArgument)
	})
}

func unspeakableTexts(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		for _, text := range []string{"", " \n\t ", "caf\xe9", "\xff\xfe", "ok \xed\xa0\x80"} {
			_, err := m.Tokenize(cgo.RulesSuno, text)
			assert.ErrorIs(t, err, cgo.ErrInvalidArgument, "%q", text)
			req.Text = text
			_, err = session.Synthesize(context.Background(), req, cgo.Sink{})
			assert.ErrorIs(t, err, cgo.ErrInvalidArgument, "%q", text)
		}
	})
}

func requestsOutOfRange(t *testing.T, s Subject) {
	nan := float32(math.NaN())
	s.withSession(t, func(_ cgo.Model, session cgo.Session, good cgo.Request) {
		for name, spoil := range map[string]func(*cgo.Request){
			"rules":                func(r *cgo.Request) { r.Rules = 5 },
			"negative temperature": func(r *cgo.Request) { r.Coarse.Temperature = -1 },
			"NaN temperature":      func(r *cgo.Request) { r.Semantic.Temperature = nan },
			"top_p 0":              func(r *cgo.Request) { r.Fine.TopP = 0 },
			"NaN top_p":            func(r *cgo.Request) { r.Fine.TopP = nan },
			"negative top_k":       func(r *cgo.Request) { r.Semantic.TopK = -1 },
			"negative limit":       func(r *cgo.Request) { r.MaxSemanticTokens = -1 },
			"limit beyond 32 bits": func(r *cgo.Request) { r.MaxSemanticTokens = math.MaxInt64 },
		} {
			req := good
			spoil(&req)
			_, err := session.Synthesize(context.Background(), req, cgo.Sink{})
			assert.ErrorIs(t, err, cgo.ErrInvalidArgument, name)
		}
		assert.NotEmpty(t, speak(t, session, good), "the session is none the worse")
	})
}

// eventsAreComplete watches a whole request: stages in order, steps counted up, tokens in their shapes.
func eventsAreComplete(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		info := m.Info()
		stage := cgo.StageSemantic
		enter := func(next cgo.Stage) {
			assert.GreaterOrEqual(t, next, stage, "stages come in order")
			stage = next
		}
		var steps [cgo.StageCount]int64
		shapes := map[cgo.Stage][2]int{}
		samples := 0
		stats, err := session.Synthesize(context.Background(), req, cgo.Sink{
			Progress: func(st cgo.Stage, done, total int64) error {
				enter(st)
				assert.Greater(t, done, steps[st])
				assert.LessOrEqual(t, done, total)
				steps[st] = done
				return nil
			},
			Tokens: func(st cgo.Stage, tokens []int32, rows, cols int) error {
				enter(st)
				shapes[st] = [2]int{rows, cols}
				assert.Len(t, tokens, rows*cols)
				for _, token := range tokens {
					assert.GreaterOrEqual(t, token, int32(0))
				}
				return nil
			},
			Audio: func(pcm []float32) error {
				enter(cgo.StageCodec)
				samples += len(pcm)
				return nil
			},
		})
		require.NoError(t, err)
		assert.Positive(t, stats.TextTokens)
		assert.False(t, stats.TextTruncated)
		assert.Equal(t, req.MaxSemanticTokens, stats.SemanticTokens)
		assert.Equal(t, stats.Frames*info.CoarseCodebooks, stats.CoarseTokens)
		assert.EqualValues(t, stats.Frames*info.HopLength, stats.Samples)
		assert.EqualValues(t, samples, stats.Samples)
		assert.Equal(t, map[cgo.Stage][2]int{
			cgo.StageSemantic: {1, stats.SemanticTokens},
			cgo.StageCoarse:   {info.CoarseCodebooks, stats.Frames},
			cgo.StageFine:     {info.FineCodebooks, stats.Frames},
		}, shapes)
		for st, n := range steps {
			assert.Positive(t, n, "progress of %s", cgo.Stage(st))
		}
	})
}

func sameSeedSameAudio(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		first := speak(t, session, req)
		assert.Equal(t, first, speak(t, session, req), "the session again")
		other, err := m.NewSession(cgo.SessionOptions{})
		require.NoError(t, err)
		defer func() { assert.NoError(t, other.Close()) }()
		assert.Equal(t, first, speak(t, other, req), "another session")
		reseeded, retold := req, req
		reseeded.Seed++
		assert.NotEqual(t, first, speak(t, session, reseeded))
		retold.Text = "Something else."
		assert.NotEqual(t, first, speak(t, session, retold))
	})
}

func greedyIgnoresTheSeed(t *testing.T, s Subject) {
	s.withSession(t, func(_ cgo.Model, session cgo.Session, req cgo.Request) {
		req.Semantic.Temperature, req.Coarse.Temperature, req.Fine.Temperature = 0, 0, 0
		first := speak(t, session, req)
		req.Seed++
		assert.Equal(t, first, speak(t, session, req))
	})
}

func voices(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		plain := speak(t, session, req)
		var spoken [][]float32
		for _, name := range m.Info().Voices[:2] {
			voice, err := m.Voice(name)
			require.NoError(t, err)
			req.Voice = voice
			spoken = append(spoken, speak(t, session, req))
			assert.NoError(t, voice.Close())
		}
		assert.NotEqual(t, plain, spoken[0])
		assert.NotEqual(t, spoken[0], spoken[1])
		_, err := m.Voice("nobody")
		assert.ErrorIs(t, err, cgo.ErrNotFound)
		assert.ErrorContains(t, err, m.Info().Voices[0], "it names those there are")
		_, err = m.Voice("nobody\x00")
		assert.ErrorIs(t, err, cgo.ErrInvalidArgument)
		req.Voice = foreignVoice{}
		_, err = session.Synthesize(context.Background(), req, cgo.Sink{})
		assert.ErrorIs(t, err, cgo.ErrInvalidArgument)
	})
}

type foreignVoice struct{}

func (foreignVoice) Close() error { return nil }

// voiceFromArrays makes a voice of a request's own tokens.
func voiceFromArrays(t *testing.T, s Subject) {
	s.withSession(t, func(m cgo.Model, session cgo.Session, req cgo.Request) {
		rows := map[cgo.Stage][][]int32{}
		_, err := session.Synthesize(context.Background(), req, cgo.Sink{
			Tokens: func(st cgo.Stage, tokens []int32, n, cols int) error {
				for i := range n {
					rows[st] = append(rows[st], append([]int32(nil), tokens[i*cols:(i+1)*cols]...))
				}
				return nil
			}})
		require.NoError(t, err)
		good := cgo.VoiceArrays{
			Semantic: rows[cgo.StageSemantic][0], Coarse: rows[cgo.StageCoarse], Fine: rows[cgo.StageFine],
		}
		voice, err := m.NewVoice(good)
		require.NoError(t, err)
		plain := speak(t, session, req)
		req.Voice = voice
		assert.NotEqual(t, plain, speak(t, session, req))
		require.NoError(t, voice.Close())
		ragged := append([][]int32{good.Fine[0][1:]}, good.Fine[1:]...)
		huge := append([][]int32{append([]int32{1 << 30}, good.Coarse[0][1:]...)}, good.Coarse[1:]...)
		for name, bad := range map[string]cgo.VoiceArrays{
			"empty":            {},
			"no semantic":      {Coarse: good.Coarse, Fine: good.Fine},
			"no fine":          {Semantic: good.Semantic, Coarse: good.Coarse},
			"one codebook":     {Semantic: good.Semantic, Coarse: good.Coarse[:1], Fine: good.Fine},
			"ragged":           {Semantic: good.Semantic, Coarse: good.Coarse, Fine: ragged},
			"code out of book": {Semantic: good.Semantic, Coarse: huge, Fine: good.Fine},
			"negative":         {Semantic: []int32{-1}, Coarse: good.Coarse, Fine: good.Fine},
		} {
			_, err := m.NewVoice(bad)
			assert.ErrorIs(t, err, cgo.ErrInvalidArgument, name)
		}
	})
}
