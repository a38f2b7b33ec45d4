package speech

import (
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/rivo/uniseg"

	"barkd/cgo"
)

// What one piece may be. Bark's context allows 15.4 s, but what it says gets loose before that: 13 s of 15.4 is what
// its users plan with. A sentence of a second or two makes it ramble on, so a shorter one joins its neighbour.
const (
	usableShare       = 0.85
	shortPieceSeconds = 3.0
	minLimitSeconds   = 5.0 // a model with a tiny context is not asked to say words one by one
	fullShare         = 0.9 // of a piece's capacity is aimed at: words are no grains of sand

	// An early first piece is at most about this long, if a sentence or a clause ends there: all of it must be made
	// before any of it is heard.
	earlySeconds = 4.0
)

// Cut says where a text is cut.
type Cut int

const (
	CutNeeded Cut = iota // where the model could not go on
	CutEarly             // after each sentence, and soon for the first time: what is said first is heard first
)

// Pieces cuts text into pieces of at most the model's text tokens and about as much speech as it can make in one go.
// Text that fits is one piece, unaltered. Otherwise, and with CutEarly, it is cut between sentences, long sentences at
// clause punctuation, then between words, then between graphemes; the pieces are the text without the white space
// around them, and nothing else is lost.
func Pieces(model cgo.Model, rules cgo.Rules, text string, cut Cut) ([]string, error) {
	info := model.Info()
	s := splitter{
		early:      cut == CutEarly,
		maxTokens:  info.MaxTextTokens,
		maxSeconds: math.Inf(1),
		count: func(part string) (int, error) {
			ids, err := model.Tokenize(rules, part)
			return len(ids), err
		},
	}
	if info.SemanticRateHz > 0 && info.MaxSemanticTokens > 0 {
		seconds := float64(info.MaxSemanticTokens) / info.SemanticRateHz * usableShare
		s.maxSeconds = max(seconds, minLimitSeconds)
	}
	return s.split(text)
}

// splitter holds what one piece may be.
type splitter struct {
	early      bool
	maxTokens  int // 0 for no limit
	maxSeconds float64
	count      func(string) (int, error) // text tokens
}

func (s *splitter) split(text string) ([]string, error) {
	share, err := s.share(text)
	if err != nil || share <= 1 && !s.early {
		return []string{text}, err
	}
	parts, err := s.sentencePieces(text)
	if err != nil {
		return nil, err
	}
	if s.early && len(parts) > 0 {
		parts = slices.Concat(earlyClauses(parts[0]), parts[1:])
	}
	pieces, err := s.joinMute(parts)
	if err != nil || len(pieces) <= 1 {
		return []string{text}, err
	}
	for i, p := range pieces {
		pieces[i] = strings.TrimSpace(p)
	}
	return pieces, nil
}

// earlyClauses cuts a first piece that is too long after its first clauses, if they are neither too short to be spoken
// well nor is the rest.
func earlyClauses(piece string) []string {
	if SpokenSeconds(piece) <= earlySeconds {
		return []string{piece}
	}
	end := 0
	for _, clause := range clauses(piece) {
		if end > 0 && SpokenSeconds(piece[:end+len(clause)]) > earlySeconds {
			break
		}
		end += len(clause)
	}
	if SpokenSeconds(piece[:end]) < shortPieceSeconds || SpokenSeconds(piece[end:]) < shortPieceSeconds {
		return []string{piece}
	}
	return []string{piece[:end], piece[end:]}
}

// joinMute joins a part without a token (white space, stray control characters) to the one before it, or at the
// start to the one after it: the model would be asked to speak nothing.
func (s *splitter) joinMute(parts []string) ([]string, error) {
	var out []string
	mute := ""
	for _, p := range parts {
		n, err := s.tokens(p)
		if err != nil {
			return nil, err
		}
		switch {
		case n > 0:
			out = append(out, mute+p)
			mute = ""
		case len(out) > 0:
			out[len(out)-1] += p
		default:
			mute += p
		}
	}
	if mute != "" {
		out = append(out, mute)
	}
	return out, nil
}

// tokens counts the text tokens of part. White space has none; a runtime under suno's rules refuses it, and U+001C to
// U+001F count as white space there.
func (s *splitter) tokens(part string) (int, error) {
	space := func(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
	if strings.TrimFunc(part, space) == "" {
		return 0, nil
	}
	return s.count(part)
}

// share is the part of one piece's capacity that text takes: above 1 it does not fit. The cheap estimate comes
// first, so that long text is not tokenized to learn that it is long.
func (s *splitter) share(text string) (float64, error) {
	share := SpokenSeconds(text) / s.maxSeconds
	if share > 1 || s.maxTokens <= 0 {
		return share, nil
	}
	n, err := s.tokens(text)
	return max(share, float64(n)/float64(s.maxTokens)), err
}

// cuts are the places to cut a sentence at, best first. Each returns consecutive parts that together are the text.
var cuts = []func(string) []string{clauses, words, graphemes, runes}

// sentencePieces makes a piece of each sentence, but joins one that is too short to be spoken well to the next one,
// or to the one before it at the end. A sentence that does not fit is divided.
func (s *splitter) sentencePieces(text string) ([]string, error) {
	var out []string
	short := false // the last piece wants company
	join := func(part string) (bool, error) {
		share, err := s.share(out[len(out)-1] + part)
		if err == nil && share <= 1 {
			out[len(out)-1] += part
			return true, nil
		}
		return false, err
	}
	parts := sentences(text)
	for i, part := range parts {
		partShort := SpokenSeconds(part) < shortPieceSeconds
		if len(out) > 0 && (short || partShort && i == len(parts)-1) {
			joined, err := join(part)
			if err != nil {
				return nil, err
			}
			if joined {
				short = SpokenSeconds(out[len(out)-1]) < shortPieceSeconds
				continue
			}
		}
		smaller, err := s.divide(part, 0)
		if err != nil {
			return nil, err
		}
		out, short = append(out, smaller...), partShort
	}
	return out, nil
}

// divide cuts text, if it does not fit, into as few pieces of about equal length as the places of the given kind
// allow: a last piece of one word would sound lost. What still does not fit is divided again.
func (s *splitter) divide(text string, level int) ([]string, error) {
	share, err := s.share(text)
	if err != nil || share <= 1 || level == len(cuts) { // of one code point there is nothing left to cut
		return []string{text}, err
	}
	groups := even(cuts[level](text), int(math.Ceil(share/fullShare)))
	if len(groups) < 2 {
		return s.divide(text, level+1)
	}
	var out []string
	for _, group := range groups {
		smaller, err := s.divide(group, level)
		if err != nil {
			return nil, err
		}
		out = append(out, smaller...)
	}
	return out, nil
}

// even joins consecutive parts to at most n groups of about equal length.
func even(parts []string, n int) []string {
	weights, total := make([]float64, len(parts)), 0.0
	for i, part := range parts {
		weights[i] = SpokenSeconds(part) + 0.01*float64(len(part)) // marks take no time, but tokens
		total += weights[i]
	}
	var groups []string
	last, before := -1, 0.0
	for i, part := range parts {
		group := int((before + weights[i]/2) / total * float64(n)) // by the part's middle
		if group != last {
			groups = append(groups, "")
		}
		groups[len(groups)-1] += part
		last, before = group, before+weights[i]
	}
	return groups
}

// sentences cuts at the sentence boundaries of Unicode's annex 29.
func sentences(text string) []string { return segments(text, uniseg.FirstSentenceInString) }

// graphemes cuts between user-perceived characters.
func graphemes(text string) []string {
	return segments(text, func(rest string, state int) (string, string, int) {
		cluster, rest, _, state := uniseg.FirstGraphemeClusterInString(rest, state)
		return cluster, rest, state
	})
}

func segments(text string, first func(string, int) (string, string, int)) []string {
	var out []string
	for state := -1; text != ""; {
		var part string
		part, text, state = first(text, state)
		out = append(out, part)
	}
	return out
}

// clauseMarks end a clause, in the scripts that Bark's voices speak.
const clauseMarks = ",;:—–…，、；：،؛।"

// clauses cuts after clause punctuation. Between digits a comma or a colon is part of the number.
func clauses(text string) []string {
	return cutAfter(text, func(r, next rune) bool {
		return strings.ContainsRune(clauseMarks, r) && !unicode.IsDigit(next) && !strings.ContainsRune(clauseMarks, next)
	})
}

// longestCue is the most runes of a cue such as [clears throat], brackets included; what is longer is text in brackets.
const longestCue = 40

// words cuts after white space, but not in a cue.
func words(text string) []string {
	opened := longestCue // runes since the last bracket was opened, if it is not closed
	return cutAfter(text, func(r, next rune) bool {
		switch opened++; r {
		case '[':
			opened = 0
		case ']':
			opened = longestCue
		}
		return unicode.IsSpace(r) && !unicode.IsSpace(next) && opened >= longestCue
	})
}

// runes cuts between code points: the last resort, for a heap of combining marks.
func runes(text string) []string {
	return cutAfter(text, func(rune, rune) bool { return true })
}

// cutAfter cuts text after each rune that ends a part, given the rune that follows it.
func cutAfter(text string, ends func(r, next rune) bool) []string {
	var out []string
	start := 0
	last := rune(-1)
	for i, r := range text {
		if last >= 0 && ends(last, r) {
			out = append(out, text[start:i])
			start = i
		}
		last = r
	}
	return append(out, text[start:])
}

// SpokenSeconds estimates how long text takes to say. The rates are those of unhurried reading: 15 letters and
// spaces a second in alphabetic scripts, some five syllables a second where a character is a syllable.
func SpokenSeconds(text string) float64 {
	seconds := 0.0
	for _, r := range text {
		switch {
		case r < 0x80 && (r < '0' || r > '9'):
			seconds += 1.0 / 15
		case unicode.IsDigit(r):
			seconds += 0.25
		case unicode.Is(unicode.Han, r):
			seconds += 0.22
		case unicode.Is(unicode.Hangul, r):
			seconds += 0.18
		case unicode.In(r, unicode.Hiragana, unicode.Katakana):
			seconds += 0.12
		case unicode.Is(unicode.Mn, r): // a mark on the letter before it
		default:
			seconds += 1.0 / 15
		}
	}
	return seconds
}
