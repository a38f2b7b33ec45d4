package untrained

import (
	"strings"
	"unicode"
)

// words are the frequent words the small vocabulary has whole; anything else is spelled out in letters.
const words = `the of and to in a is that for it was on with as his they at be this from have or by one had not but what all
were when we there can an your which their said if do will each about how up out them then she many some so these would
other into has more her two like him see time could no make than first been its who now people my made over did down only
way find use may water long little very after words called just where most know hello world good morning bark speech`

// Vocabulary returns the tokens of a small WordPiece vocabulary and its special tokens: printable ASCII, the letters of
// the Latin script to U+017F alone and as continuations, and some words.
func Vocabulary() (tokens, special []string) {
	special = []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	tokens = append(tokens, special...)
	var continuations []string
	for r := '!'; r <= 'ſ'; r++ {
		letter := unicode.IsLetter(r)
		if r > '~' && !letter {
			continue
		}
		tokens = append(tokens, string(r))
		if letter || unicode.IsDigit(r) {
			continuations = append(continuations, "##"+string(r))
		}
	}
	tokens = append(tokens, continuations...)
	for _, w := range strings.Fields(words) {
		if len(w) > 1 { // letters are in already
			tokens = append(tokens, w)
		}
	}
	return tokens, special
}
