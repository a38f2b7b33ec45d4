package api

import (
	"fmt"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"barkd/server/audio"
	"barkd/server/speech"
)

// delivery is how the audio of a request is sent.
type delivery int

const (
	deliverAuto   delivery = iota // a text of several pieces as a stream, others whole; see utterance.begin
	deliverStream                 // stream_format "audio"
	deliverEvents                 // stream_format "sse"
)

// speech is POST /v1/audio/speech.
func (s *Server) speech(c *fiber.Ctx) error {
	body, err := s.jsonBody(c)
	if err != nil {
		return err
	}
	order, err := parseSpeech(body)
	if err != nil {
		return err
	}
	if order.request.Model, err = modelOf(c, order.request.Model); err != nil {
		return err
	}
	return s.say(c, order)
}

// say answers with the speech that an order asks for.
func (s *Server) say(c *fiber.Ctx, order speechBody) error {
	s.prepare(c, &order)
	content := s.content(c, order)
	if s.unchanged(c, order, content) {
		return nil
	}
	u, err := s.utter(c, order)
	if err != nil {
		return err
	}
	u.waitForReceipt(content)
	select {
	case <-u.begun:
		u.sendStream(c)
		return nil
	case <-u.done:
		defer u.stop()
		if u.err != nil {
			return u.err
		}
		return u.sendWhole(c)
	}
}

// waitForReceipt learns what the audio is made of while it is made.
func (u *utterance) waitForReceipt(content speech.Content) {
	select {
	case <-u.decided:
	case <-u.done:
		if u.err != nil {
			return
		}
	}
	u.receipt.digest = u.server.digest(u.ctx, u.start.Model, u.start.Version)
	if content.Version == u.start.Version { // else the model in memory is not the file's any more
		u.receipt.content = content
	}
}

// sendWhole answers with the complete audio.
func (u *utterance) sendWhole(c *fiber.Ctx) error {
	pcm, rateHz, format := u.pcm, u.result.SampleRate, u.order.format
	if u.order.speed != 1 {
		var err error
		if pcm, err = audio.ChangeSpeed(pcm, rateHz, u.order.speed); err != nil {
			return fmt.Errorf("change the speed of the speech of %q: %w", u.order.request.Model, err)
		}
	}
	encoded, err := audio.Encode(format, rateHz, pcm)
	if err != nil {
		return fmt.Errorf("encode the speech of %q as %s: %w", u.order.request.Model, format.Name, err)
	}
	u.startHeaders(c)
	for name, value := range u.endHeaders() {
		c.Set(name, value)
	}
	c.Set(fiber.HeaderContentType, format.ContentType)
	c.Context().Response.SetBodyRaw(encoded)
	return nil
}

// startHeaders tell what it takes to make the same audio again, and whether it is speech at all.
func (u *utterance) startHeaders(c *fiber.Ctx) {
	start := u.start
	c.Set(headerModel, start.Model)
	u.receipt.headers(c, u.receipt.tag(u.server.Build, u.order, u.streamed))
	if u.order.request.Seed != nil {
		c.Set(headerAudioCache, origins[start.From])
	}
	c.Set("X-Barkd-Seed", strconv.FormatUint(start.Seed, 10))
	c.Set("X-Barkd-Pieces", strconv.Itoa(start.Pieces))
	c.Set("X-Barkd-Sample-Rate", strconv.Itoa(u.order.format.RateHz(start.SampleRate)))
	if start.Voice != "" {
		c.Set("X-Barkd-Voice", start.Voice)
	}
	if u.generation != "" {
		c.Set("X-Barkd-Generation", u.generation)
	}
	if !start.Trained {
		c.Set("X-Barkd-Untrained", "true")
	}
}

// The headers that are known when the audio is; streams send them as trailers.
const (
	headerAudioSeconds   = "X-Barkd-Audio-Seconds"
	headerRealTimeFactor = "X-Barkd-Real-Time-Factor"
)

func (u *utterance) endHeaders() map[string]string {
	return map[string]string{
		headerAudioSeconds:   decimal(u.result.AudioSeconds() / u.order.speed),
		headerRealTimeFactor: decimal(u.result.RealTimeFactor()),
	}
}

func decimal(x float64) string { return strconv.FormatFloat(x, 'f', 3, 64) }
