package convert

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/models/schema"
)

const fullTokenizer = `{"added_tokens": [{"id": 0, "content": "[PAD]", "special": true}, {"id": 4, "content": "<x>", "special": true}],
 "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": false},
 "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 50,
 "vocab": {"[PAD]": 0, "[UNK]": 1, "b": 3, "##a": 2}}}`

func bytesOf(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func TestTokenizerFollowsTransformers(t *testing.T) {
	list := []string{"[PAD]", "[UNK]", "##a", "b"}
	const vocab = "[PAD]\r\n[UNK]\r\n##a\r\nb"
	const bert = `{"tokenizer_class": "BertTokenizer"`
	for name, c := range map[string]struct {
		config, full, list string
		want               schema.Tokenizer
	}{
		"a bare vocab.txt has Bark's rules": {"", "", vocab + "\n", schema.Tokenizer{
			Tokens: list, UnknownToken: 1, SpecialTokens: []string{"[PAD]", "[UNK]"}, SplitCJK: true, MaxWordChars: 100}},
		"BertTokenizer's config decides over vocab.txt": {bert + `, "do_lower_case": false, "strip_accents": true}`, "", vocab, schema.Tokenizer{
			Tokens: list, UnknownToken: 1, SpecialTokens: []string{"[PAD]", "[UNK]"}, StripAccents: true, SplitCJK: true, MaxWordChars: 100}},
		"BertTokenizer lower-cases unless told not to": {bert + `}`, "", vocab, schema.Tokenizer{
			Tokens: list, UnknownToken: 1, SpecialTokens: []string{"[PAD]", "[UNK]"}, Lowercase: true, StripAccents: true, SplitCJK: true, MaxWordChars: 100}},
		"null accents follow the case": {bert + `, "do_lower_case": false, "strip_accents": null, "tokenize_chinese_chars": false}`, "", vocab, schema.Tokenizer{
			Tokens: list, UnknownToken: 1, SpecialTokens: []string{"[PAD]", "[UNK]"}, MaxWordChars: 100}},
		"special tokens may be objects": {bert + `, "do_lower_case": false, "unk_token": {"content": "b"}, "pad_token": "##a"}`, "", vocab, schema.Tokenizer{
			Tokens: list, UnknownToken: 3, SpecialTokens: []string{"##a", "b"}, SplitCJK: true, MaxWordChars: 100}},
		"tokenizer.json alone decides": {"", fullTokenizer, "", schema.Tokenizer{
			Tokens: append(list, "<x>"), UnknownToken: 1, SpecialTokens: []string{"[PAD]", "<x>"}, SplitCJK: true, MaxWordChars: 50}},
		"BertTokenizer's config decides over tokenizer.json": {bert + `, "do_lower_case": true}`, fullTokenizer, "", schema.Tokenizer{
			Tokens: append(list, "<x>"), UnknownToken: 1, SpecialTokens: []string{"[PAD]", "<x>", "[UNK]"}, Lowercase: true, StripAccents: true, SplitCJK: true, MaxWordChars: 100}},
	} {
		got, err := parseTokenizer(bytesOf(c.config), bytesOf(c.full), bytesOf(c.list))
		require.NoError(t, err, name)
		assert.Equal(t, c.want, got, name)
	}
}

func TestUnusableVocabulariesAreErrors(t *testing.T) {
	for name, c := range map[string]struct{ config, full, list, want string }{
		"empty":           {"", "", "\n", "empty"},
		"blank line":      {"", "", "[UNK]\n\nb\n", "entry 1"},
		"repeated":        {"", "", "[UNK]\nb\nb\n", "repeats entry 1"},
		"no unknown":      {"", "", "a\nb\n", "[UNK]"},
		"invalid UTF-8":   {"", "", "[UNK]\n\xff\n", "UTF-8"},
		"gap":             {"", `{"model": {"vocab": {"[UNK]": 0, "a": 2}}}`, "", "gaps"},
		"negative id":     {"", `{"model": {"vocab": {"[UNK]": -1}}}`, "", "id -1"},
		"huge id":         {"", `{"model": {"vocab": {"[UNK]": 2000000000}}}`, "", "id 2000000000"},
		"two of one id":   {"", `{"model": {"vocab": {"[UNK]": 0, "a": 0}}}`, "", "id 0"},
		"byte pairs":      {"", `{"model": {"type": "BPE", "vocab": {}}}`, "", "BPE"},
		"other prefix":    {"", `{"model": {"continuing_subword_prefix": "@@"}}`, "", "@@"},
		"other normalize": {"", `{"normalizer": {"type": "NFC"}, "model": {"vocab": {"[UNK]": 0}}}`, "", "NFC"},
		"flag of text":    {`{"do_lower_case": "no"}`, "", "[UNK]\n", "true or false"},
		"no JSON":         {"", "{", "", "tokenizer.json"},
	} {
		_, err := parseTokenizer(bytesOf(c.config), bytesOf(c.full), bytesOf(c.list))
		assert.ErrorContains(t, err, c.want, name)
	}
}

func FuzzTokenizerFiles(f *testing.F) {
	f.Add([]byte(`{"tokenizer_class": "BertTokenizer", "do_lower_case": false, "unk_token": {"content": "b"}}`), []byte(fullTokenizer), true)
	f.Add([]byte(`{}`), []byte(smallVocab), false)
	f.Fuzz(func(t *testing.T, config, vocabulary []byte, full bool) {
		var tok schema.Tokenizer
		var err error
		if full {
			tok, err = parseTokenizer(config, vocabulary, nil)
		} else {
			tok, err = parseTokenizer(config, nil, vocabulary)
		}
		if err == nil && (tok.UnknownToken >= len(tok.Tokens) || len(tok.Tokens) == 0) {
			t.Fatalf("unknown token %d of %d", tok.UnknownToken, len(tok.Tokens))
		}
	})
}
