package api

import (
	"io"
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace"

	"barkd/server/speech"
)

// writePatience is how long a client may take none of a stream before it is given up: it holds up the model.
const writePatience = 30 * time.Second

// tellEvery is how often progress is told within a stage.
const tellEvery = 100 * time.Millisecond

// sendStream answers with the audio as it is made. The handler must return right after.
func (u *utterance) sendStream(c *fiber.Ctx) {
	unbuffered(c)
	u.startHeaders(c)
	if !u.order.progress { // else there is no audio yet
		c.Set("X-Barkd-Held-Seconds", decimal(u.held.Seconds()))
		if u.starves {
			c.Set("X-Barkd-Underruns-Expected", "true")
		}
	}
	body := &speechBodyStream{utterance: u, conn: c.Context().Conn()}
	if u.order.delivery == deliverEvents {
		c.Set(fiber.HeaderContentType, mimeEvents)
	} else {
		c.Set(fiber.HeaderContentType, u.order.format.ContentType)
		body.trailer = &c.Context().Response.Header
		for _, name := range []string{headerAudioSeconds, headerRealTimeFactor} {
			_ = body.trailer.AddTrailer(name) // it fails for the names that HTTP forbids
		}
	}
	c.Context().Response.SetBodyStream(body, -1)
}

// speechBodyStream is the response's end of an utterance. fasthttp reads it, sends each block as a chunk at once, and
// closes it. An error breaks the connection off without the last chunk, so that no client takes what it has for all.
type speechBodyStream struct {
	utterance *utterance
	conn      net.Conn
	trailer   *fasthttp.ResponseHeader // nil for events
}

func (b *speechBodyStream) Read(p []byte) (int, error) {
	n, err := b.utterance.from.Read(p)
	if err == io.EOF && b.trailer != nil { // the result is set before the pipe is closed
		for name, value := range b.utterance.endHeaders() {
			b.trailer.Set(name, value)
		}
	}
	if late := b.conn.SetWriteDeadline(time.Now().Add(writePatience)); late != nil && err == nil {
		err = late
	}
	return n, err
}

// Close ends the utterance if it has not ended, and waits for that. The connection may serve other requests.
func (b *speechBodyStream) Close() error {
	u := b.utterance
	defer trace.SpanFromContext(u.ctx).End()
	_ = u.from.CloseWithError(errClientGone) // it never fails
	u.stop()
	<-u.done
	return b.conn.SetWriteDeadline(time.Time{})
}

// The events of stream_format "sse", as OpenAI names them; the last is its own only in the form of its error.
type (
	deltaEvent struct {
		Type  string `json:"type"`
		Audio []byte `json:"audio"` // base64 in JSON
	}
	doneEvent struct {
		Type  string `json:"type"`
		Usage usage  `json:"usage"`
	}
	progressEvent struct { // ours
		Type   string `json:"type"`
		Piece  int    `json:"piece"` // from 0
		Pieces int    `json:"pieces"`
		Stage  string `json:"stage"`
		Done   int    `json:"done"`
		Total  int    `json:"total"` // a bound
	}
	errorEvent struct {
		Type string `json:"type"`
		envelope
	}
)

// usage counts the tokens of the text and the semantic tokens made from it, about 50 per second of speech.
type usage struct {
	InputTokens  int `json:"input_tokens"`
	OutputTokens int `json:"output_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

func (u *utterance) sendDelta(encoded []byte) error {
	const name = "speech.audio.delta"
	return writeEvent(u.to, name, "", deltaEvent{Type: name, Audio: encoded})
}

func (u *utterance) sendProgress(at speech.Progress) error {
	const name = "speech.audio.progress"
	return writeEvent(u.to, name, "", progressEvent{Type: name, Piece: at.Piece, Pieces: at.Pieces, Stage: at.Stage.String(),
		Done: at.Done, Total: at.Total})
}

func (u *utterance) sendDone() error {
	const name = "speech.audio.done"
	var use usage
	for _, s := range u.result.Stats {
		use.InputTokens += s.TextTokens
		use.OutputTokens += s.SemanticTokens
	}
	use.TotalTokens = use.InputTokens + use.OutputTokens
	return writeEvent(u.to, name, "", doneEvent{Type: name, Usage: use})
}

func (u *utterance) sendError(err error) error {
	const name = "speech.audio.error"
	return writeEvent(u.to, name, "", errorEvent{Type: name, envelope: toError(err, u.cause()).envelope()})
}
