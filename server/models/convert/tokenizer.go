package convert

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"barkd/server/models/schema"
)

// maxTokens bounds a vocabulary; the real one has 119547 entries.
const maxTokens = 1 << 22

// specialKeys are the tokens that a BERT tokenizer cuts out of the text before anything else, with their defaults.
var specialKeys = []struct{ key, token string }{
	{"pad_token", "[PAD]"}, {"unk_token", "[UNK]"}, {"cls_token", "[CLS]"}, {"sep_token", "[SEP]"}, {"mask_token", "[MASK]"},
}

// readTokenizer reads tokenizer.json or vocab.txt and tokenizer_config.json of a folder, and returns the files it used.
func readTokenizer(dir string) (schema.Tokenizer, []string, error) {
	var used []string
	read := func(name string) ([]byte, error) {
		b, err := readText(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if err == nil {
			used = append(used, name)
		}
		return b, err
	}
	config, err := read("tokenizer_config.json")
	if err != nil {
		return schema.Tokenizer{}, nil, err
	}
	full, err := read("tokenizer.json")
	if err != nil {
		return schema.Tokenizer{}, nil, err
	}
	var list []byte
	if full == nil {
		if list, err = read("vocab.txt"); err != nil {
			return schema.Tokenizer{}, nil, err
		}
		if list == nil {
			return schema.Tokenizer{}, nil, errors.New(
				"no vocabulary: the folder needs the vocab.txt (or tokenizer.json) of bert-base-multilingual-cased")
		}
	}
	t, err := parseTokenizer(config, full, list)
	return t, used, err
}

// parseTokenizer builds the tokenizer that transformers would: a tokenizer_config.json of class BertTokenizer decides
// the switches, else tokenizer.json does; a bare vocab.txt gets Bark's own. Any of the three may be nil.
func parseTokenizer(config, full, list []byte) (schema.Tokenizer, error) {
	t := schema.Tokenizer{SplitCJK: true, MaxWordChars: 100}
	flags := settings{name: "tokenizer_config.json", err: new(error)}
	if config != nil {
		var err error
		if flags, err = parseSettings(flags.name, config); err != nil {
			return t, err
		}
	}
	bert := strings.HasPrefix(flags.text("", "tokenizer_class"), "Bert")
	unknown := "[UNK]"
	var special []string
	if full != nil {
		root, err := parseSettings("tokenizer.json", full)
		if err != nil {
			return t, err
		}
		root.err = flags.err
		if special, err = parseFull(&t, root, &unknown); err != nil {
			return t, err
		}
	} else {
		t.Tokens = strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(list), "\r\n", "\n"), "\n"), "\n")
	}
	if bert || full == nil {
		switches(&t, flags, bert)
		for _, s := range specialKeys {
			token := specialToken(flags, s.key, s.token)
			special = append(special, token)
			if s.key == "unk_token" {
				unknown = token
			}
		}
	}
	if *flags.err != nil {
		return t, *flags.err
	}
	return t, finish(&t, unknown, special)
}

// switches reads what BertTokenizer takes from its config. Its own default for do_lower_case is true; without a config
// the text keeps its case, as Bark's does.
func switches(t *schema.Tokenizer, flags settings, bert bool) {
	t.Lowercase = flags.boolean(bert, "do_lower_case")
	t.StripAccents = flags.boolean(t.Lowercase, "strip_accents")
	t.SplitCJK = flags.boolean(true, "tokenize_chinese_chars")
	t.MaxWordChars = 100
}

// specialToken reads a token given as a string or as an object with its content.
func specialToken(flags settings, key, def string) string {
	if _, ok := flags.values[key].(map[string]any); ok {
		return flags.object(key).text(def, "content")
	}
	return flags.text(def, key)
}

// parseFull reads tokenizer.json: a WordPiece model behind BERT's normalizer. It returns the added tokens.
func parseFull(t *schema.Tokenizer, root settings, unknown *string) ([]string, error) {
	model := root.object("model")
	if kind := model.text("WordPiece", "type"); kind != "WordPiece" {
		return nil, fmt.Errorf("tokenizer.json: the model is %s, want WordPiece", kind)
	}
	if prefix := model.text("##", "continuing_subword_prefix"); prefix != "##" {
		return nil, fmt.Errorf("tokenizer.json: continuation prefix %q, want ##", prefix)
	}
	*unknown = model.text("[UNK]", "unk_token")
	t.MaxWordChars = model.integer(100, "max_input_chars_per_word")
	normalizer := root.object("normalizer")
	if kind := normalizer.text("BertNormalizer", "type"); kind != "BertNormalizer" {
		return nil, fmt.Errorf("tokenizer.json: the normalizer is %s, want BertNormalizer", kind)
	}
	t.Lowercase = normalizer.boolean(false, "lowercase")
	t.StripAccents = normalizer.boolean(t.Lowercase, "strip_accents")
	t.SplitCJK = normalizer.boolean(true, "handle_chinese_chars")

	ids := make(map[int]string)
	vocab := model.object("vocab")
	for token := range vocab.values {
		if err := place(ids, token, vocab.integer(-1, token)); err != nil {
			return nil, err
		}
	}
	var added []string
	items, _ := root.values["added_tokens"].([]any)
	for i, item := range items {
		values, _ := item.(map[string]any)
		s := settings{name: fmt.Sprintf("tokenizer.json: added token %d", i), values: values, err: root.err}
		token := s.text("", "content")
		if err := place(ids, token, s.integer(-1, "id")); err != nil {
			return nil, err
		}
		added = append(added, token)
	}
	t.Tokens = make([]string, len(ids))
	for id, token := range ids {
		if id >= len(t.Tokens) {
			return nil, fmt.Errorf("tokenizer.json: token %q has id %d of %d tokens: ids have gaps", token, id, len(ids))
		}
		t.Tokens[id] = token
	}
	return added, *root.err
}

// place notes a token's id, which may be given twice when both agree.
func place(ids map[int]string, token string, id int) error {
	if known, taken := ids[id]; id < 0 || id >= maxTokens || token == "" || taken && known != token {
		return fmt.Errorf("tokenizer.json: token %q cannot have id %d", token, id)
	}
	ids[id] = token
	return nil
}

// finish checks the vocabulary and keeps the special tokens that it has.
func finish(t *schema.Tokenizer, unknown string, special []string) error {
	if len(t.Tokens) > maxTokens {
		return fmt.Errorf("vocabulary of %d tokens, limit %d", len(t.Tokens), maxTokens)
	}
	index := make(map[string]int, len(t.Tokens))
	for id, token := range t.Tokens {
		if !utf8.ValidString(token) {
			return fmt.Errorf("vocabulary: entry %d is not UTF-8", id)
		}
		if first, twice := index[token]; twice || token == "" {
			return fmt.Errorf("vocabulary: entry %d, %q, is empty or repeats entry %d", id, token, first)
		}
		index[token] = id
	}
	id, ok := index[unknown]
	if !ok {
		return fmt.Errorf("vocabulary: the unknown token %q is not in it", unknown)
	}
	t.UnknownToken = id
	for _, token := range special {
		if _, ok := index[token]; ok && !slices.Contains(t.SpecialTokens, token) {
			t.SpecialTokens = append(t.SpecialTokens, token)
		}
	}
	return nil
}
