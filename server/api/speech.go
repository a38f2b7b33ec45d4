package api

import (
	"context"
	"fmt"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"barkd/server/audio"
	"barkd/server/speech"
)

// speech is POST /v1/audio/speech.
func (s *Server) speech(c *fiber.Ctx) error {
	body, err := jsonBody(c)
	if err != nil {
		return err
	}
	req, format, err := parseSpeech(body)
	if err != nil {
		return err
	}
	ctx, stop := s.clientContext(c)
	defer stop()
	req.ID = requestID(c)
	return s.speak(ctx, c, req, format)
}

func (s *Server) speak(ctx context.Context, c *fiber.Ctx, req speech.Request, format audio.Format) error {
	var pcm []float32
	stage := "queue"
	result, err := s.Speaker.Speak(ctx, req, speech.Sink{
		Audio: func(part []float32) error {
			pcm = append(pcm, part...)
			return nil
		},
		Progress: func(at speech.Progress) error {
			stage = at.Stage.String()
			return nil
		},
	})
	if err != nil {
		if ctx.Err() != nil {
			s.Metrics.Cancelled(stage)
		}
		return &modelError{id: req.Model, err: err}
	}
	s.Metrics.Spoke(result.RealTimeFactor())
	encoded, err := audio.Encode(format, result.SampleRate, pcm)
	if err != nil {
		return fmt.Errorf("encode the speech of %q as %s: %w", req.Model, format.Name, err)
	}
	speechHeaders(c, result)
	c.Set(fiber.HeaderContentType, format.ContentType)
	c.Context().Response.SetBodyRaw(encoded)
	s.Log.Info().Str("request_id", requestID(c)).Str("model", req.Model).Str("voice", result.Voice).
		Uint64("seed", result.Seed).Int("pieces", result.Pieces).Float64("audio_s", result.AudioSeconds()).
		Float64("real_time_factor", result.RealTimeFactor()).Dur("waited_ms", result.Waited).Msg("spoke")
	return nil
}

// speechHeaders tells what it takes to make the same audio again, and whether it is speech at all.
func speechHeaders(c *fiber.Ctx, r speech.Result) {
	c.Set("X-Barkd-Seed", strconv.FormatUint(r.Seed, 10))
	c.Set("X-Barkd-Pieces", strconv.Itoa(r.Pieces))
	c.Set("X-Barkd-Audio-Seconds", decimal(r.AudioSeconds()))
	c.Set("X-Barkd-Real-Time-Factor", decimal(r.RealTimeFactor()))
	c.Set("X-Barkd-Sample-Rate", strconv.Itoa(r.SampleRate))
	if r.Voice != "" {
		c.Set("X-Barkd-Voice", r.Voice)
	}
	if !r.Trained {
		c.Set("X-Barkd-Untrained", "true")
	}
}

func decimal(x float64) string { return strconv.FormatFloat(x, 'f', 3, 64) }
