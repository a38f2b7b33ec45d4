package api

import (
	"context"
	"io"

	"github.com/gofiber/fiber/v2"

	"barkd/server/audio"
	"barkd/server/jobs"
	"barkd/server/speech"
)

// SpeakJob implements jobs.Speaker.
func (s *Server) SpeakJob(ctx context.Context, id string, text []byte, to io.WriteSeeker, progress func(jobs.Progress)) (contentType string, seconds float64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError(p)
		}
		err = jobFailure(err)
	}()
	order, err := parseSpeech(text)
	if err != nil {
		return "", 0, err
	}
	order.request.ID, order.request.KV = "job-"+id, s.KV
	if s.Voices != nil {
		order.request.Voice.Stored = s.Voices.Lookup
	}
	if order.cut != nil {
		order.request.Cut = *order.cut
	}
	var encoder audio.Encoder
	defer func() {
		if encoder != nil {
			encoder.Abort()
		}
	}()
	result, err := s.Speaker.Speak(ctx, order.request, speech.Sink{
		Start: func(start speech.Start) (err error) {
			encoder, err = fileEncoder(to, order, start.SampleRate)
			return err
		},
		Audio: func(part []float32) error { return encoder.Write(part) },
		Progress: func(at speech.Progress) error {
			progress(jobs.Progress{Piece: at.Piece + 1, Pieces: at.Pieces, Stage: at.Stage.String(), Done: at.Done, Total: at.Total})
			return nil
		},
	})
	if err == nil {
		err = encoder.Close()
	}
	if err != nil {
		return "", 0, &modelError{id: order.request.Model, err: err}
	}
	s.Metrics.Spoke(result.RealTimeFactor())
	return order.format.ContentType, result.AudioSeconds() / order.speed, nil
}

// fileEncoder writes an order's audio where its header can be completed at the end.
func fileEncoder(to io.Writer, order speechBody, rateHz int) (audio.Encoder, error) {
	plain, err := audio.NewEncoder(to, order.format, rateHz, audio.UnknownLength)
	if err != nil {
		return nil, err
	}
	fast, err := audio.AtSpeed(plain, rateHz, order.speed)
	if err != nil {
		plain.Abort()
		return nil, err
	}
	return fast, nil
}

// jobFailure says of an error whether the job can be tried again: what is a 503 to a client passes, the client's own
// mistakes and a model that is not here stay.
func jobFailure(err error) error {
	if err == nil {
		return nil
	}
	e := toError(err, nil)
	switch {
	case e.Status == fiber.StatusServiceUnavailable:
		return &jobs.Failure{Code: e.Code, Message: e.Message, RetryAfter: max(e.RetryAfter, retrySoon)}
	case e.Status < fiber.StatusInternalServerError || e.Status == fiber.StatusNotImplemented:
		return &jobs.Failure{Code: e.Code, Message: e.Message}
	}
	return err
}
