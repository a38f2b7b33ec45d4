package api

import (
	"errors"
	"testing"
	"unicode/utf8"
)

func FuzzSpeechBody(f *testing.F) {
	f.Add([]byte(`{"model":"suno/bark","input":"Hi.","voice":{"id":"x"},"seed":3,"temperature":0.5}`))
	f.Add([]byte(`{"model":"a","input":"\ud83d\ude00","top_p":1e-46}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		hasLoneSurrogate(body)
		if !utf8.Valid(body) {
			return
		}
		order, err := parseSpeech(body)
		req := order.request
		var known *Error
		if err != nil && !errors.As(err, &known) {
			t.Fatalf("%q: %v is no Error", body, err)
		}
		if err == nil && (req.Text == "" || !utf8.ValidString(req.Text) || order.format.Name == "" || !(order.speed >= 0.25 && order.speed <= 4)) {
			t.Fatalf("%q passed as %+v", body, req)
		}
	})
}

func FuzzVoiceForm(f *testing.F) {
	f.Add([]byte("--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\na\r\n--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nPK\r\n--x--\r\n"), "x")
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		v, err := parseVoiceForm(body, boundary)
		var known *Error
		if err != nil && !errors.As(err, &known) {
			t.Fatalf("%q: %v is no Error", body, err)
		}
		if err == nil && (v.Name == "" || len(v.arrays.Semantic) == 0) {
			t.Fatalf("%q passed as %+v", body, v)
		}
	})
}
