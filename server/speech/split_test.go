package speech_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/speech"
	"barkd/server/speech/speechtest"
)

const sentence = "The quick brown fox jumps over the lazy dog, and then it walks home in the evening sun."

func pieces(t *testing.T, text string) []string {
	t.Helper()
	out, err := speech.Pieces(speechtest.NewModel("m"), cgo.RulesSuno, text, speech.CutNeeded)
	require.NoError(t, err)
	return out
}

func TestTextThatFitsIsOnePieceUnaltered(t *testing.T) {
	text := "  Hello.\n\tMy name is Bark.  [laughs] "
	assert.Equal(t, []string{text}, pieces(t, text))
}

func TestLongTextIsCutBetweenSentences(t *testing.T) {
	got := pieces(t, strings.Repeat(sentence+" ", 5))
	assert.Equal(t, []string{sentence, sentence, sentence, sentence, sentence}, got)
}

func TestShortSentencesJoinTheirNeighbours(t *testing.T) {
	got := pieces(t, strings.Repeat("Yes. ", 4)+strings.Repeat(sentence+" ", 3)+"No.")
	require.Len(t, got, 3)
	assert.Equal(t, "Yes. Yes. Yes. Yes. "+sentence, got[0])
	assert.Equal(t, sentence+" No.", got[2])
}

func TestLongSentenceIsCutAtClausesThenWordsThenGraphemes(t *testing.T) {
	clause := "and so the long sentence of a clause without end goes on, "
	for name, text := range map[string]string{
		"clauses":   strings.TrimSpace(strings.Repeat(clause, 21)),
		"words":     strings.TrimSpace(strings.Repeat("word ", 200)),
		"graphemes": strings.Repeat("नि", 500),
		"runes":     "a" + strings.Repeat("\u0301", 4000),
	} {
		t.Run(name, func(t *testing.T) {
			got := pieces(t, text)
			require.Greater(t, len(got), 1)
			for _, p := range got {
				switch name {
				case "clauses":
					assert.True(t, strings.HasSuffix(p, ","), p)
				case "words":
					assert.Empty(t, strings.ReplaceAll(strings.ReplaceAll(p, "word", ""), " ", ""), p)
				case "graphemes":
					assert.True(t, strings.HasPrefix(p, "न") && strings.HasSuffix(p, "ि"), p)
				}
			}
			shortest, longest := len(got[0]), 0
			for _, p := range got {
				shortest, longest = min(shortest, len(p)), max(longest, len(p))
			}
			assert.Less(t, longest, 3*shortest, "pieces of about equal length")
		})
	}
}

func TestWordsFillThePiecesTheyNeed(t *testing.T) {
	text := strings.Repeat("hello world ", 2000)
	got := pieces(t, text)
	assert.Less(t, float64(len(got)), 1.2*speech.SpokenSeconds(text)/13)
}

func TestEarlyCutIsSoonForTheFirstTime(t *testing.T) {
	early := func(text string) []string {
		out, err := speech.Pieces(speechtest.NewModel("m"), cgo.RulesSuno, text, speech.CutEarly)
		require.NoError(t, err)
		return out
	}
	const a, b = "The first sentence is of a good length, friends.", "The second one is about as long as the first."
	assert.Equal(t, []string{a, b}, early(a+" "+b))
	assert.Equal(t, []string{"Yes. " + a, b}, early("Yes. "+a+" "+b), "a short one is not alone")
	assert.Equal(t, []string{"The quick brown fox jumps over the lazy dog, all at once,", "and then it walks home in the late evening sun."},
		early("The quick brown fox jumps over the lazy dog, all at once, and then it walks home in the late evening sun."))
	whole := "The quick brown fox jumps over the lazy dog and then walks home, in the evening, in the sun."
	assert.Equal(t, []string{whole}, early(whole), "a clause that comes late is no early end")
	assert.Equal(t, []string{"  Hi.\n"}, early("  Hi.\n"), "nothing to cut, nothing altered")
}

func TestThousandsSeparatorIsNoClause(t *testing.T) {
	for _, p := range pieces(t, strings.Repeat("it costs 1,000,000 and 2:30 more than the other one ", 12)) {
		assert.NotRegexp(t, `[,:]$`, p)
	}
}

func TestCuesAreKeptWhole(t *testing.T) {
	cues := []string{"[laughs]", "[clears throat]", "♪", "[MAN]", "—", "..."}
	for name, text := range map[string]string{
		"sentences": strings.Repeat("Well [laughs] I did not expect that. [clears throat] ♪ In the jungle, the mighty jungle ♪ [MAN] HELLO — and so on... ", 8),
		"one word":  strings.TrimSpace(strings.Repeat("[clears throat] ", 120)),
		"no stop":   strings.TrimSpace(strings.Repeat("and then [laughs] and [clears throat] and ♪ la la ♪ and — well ... [MAN] no ", 12)),
	} {
		for _, cut := range []speech.Cut{speech.CutNeeded, speech.CutEarly} {
			got, err := speech.Pieces(speechtest.NewModel("m"), cgo.RulesSuno, text, cut)
			require.NoError(t, err)
			require.Greater(t, len(got), 1, name)
			for _, cue := range cues {
				n := 0
				for _, p := range got {
					n += strings.Count(p, cue)
				}
				assert.Equal(t, strings.Count(text, cue), n, "%s of %s", cue, name)
			}
			assert.Equal(t, strings.Join(strings.Fields(text), ""), strings.Join(strings.Fields(strings.Join(got, "")), ""), name)
		}
	}
}

func TestControlCharactersAreNoPieceOfTheirOwn(t *testing.T) {
	for _, p := range pieces(t, "\x01\x02\n"+strings.Repeat(sentence+"\n\x00\n", 6)) {
		assert.True(t, strings.ContainsFunc(p, unicode.IsLetter), "%q", p)
	}
}

// checkPieces is the property: nothing is lost or altered but white space, and every piece fits.
func checkPieces(t *testing.T, text string) {
	t.Helper()
	model := speechtest.NewModel("m")
	model.Facts.MaxTextTokens = 40
	for _, cut := range []speech.Cut{speech.CutNeeded, speech.CutEarly} {
		got, err := speech.Pieces(model, cgo.RulesSuno, text, cut)
		require.NoError(t, err)
		checkCut(t, model, text, got)
	}
}

func checkCut(t *testing.T, model *speechtest.Model, text string, got []string) {
	t.Helper()
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
	require.Equal(t, squeeze(text), squeeze(strings.Join(got, "")))
	if len(got) == 1 {
		require.Equal(t, text, got[0])
	}
	for _, p := range got {
		ids, err := model.Tokenize(cgo.RulesSuno, p)
		require.NoError(t, err)
		require.LessOrEqual(t, len(ids), 40, "%q", p)
		// A trailing mute piece of control characters may come on top of the estimate.
		spoken := strings.Map(func(r rune) rune {
			if unicode.IsControl(r) || unicode.IsSpace(r) {
				return -1
			}
			return r
		}, p)
		require.LessOrEqual(t, speech.SpokenSeconds(spoken), 15.4, "%q", p)
	}
}

func TestPiecesLoseNothing(t *testing.T) {
	alphabet := []rune("abc XYZ.,!?;:—\n\t 0123456789¿。、你好こんにちは한국어हिन्दी\u0301\u200d👩‍👩‍👧\x00\u00a0\"')([]♪…")
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		text := make([]rune, rng.IntN(1500))
		for i := range text {
			text[i] = alphabet[rng.IntN(len(alphabet))]
		}
		checkPieces(t, string(text))
	}
}

func FuzzPieces(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat(sentence, 5))
	f.Add(strings.Repeat("a\u0301", 900))
	f.Add("\x00\n" + strings.Repeat("1,0 . ", 90))
	f.Fuzz(func(t *testing.T, text string) {
		if utf8.ValidString(text) && len(text) < 1<<14 {
			checkPieces(t, text)
		}
	})
}
