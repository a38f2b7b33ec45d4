package speech

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"barkd/cgo"
	"barkd/server/tracing"
)

// turn waits for the ticket's turn.
func turn(ctx context.Context, ticket *Ticket) error {
	ctx, span := tracing.Start(ctx, "queue")
	err := ticket.Start(ctx)
	span.End(err)
	return err
}

// tracePiece tells of a piece that began so and has ended. Its stages are shown one after the other, each as long as all its
// work took: where they overlap, their sum is more than the piece.
func tracePiece(ctx context.Context, span tracing.Span, began time.Time, i int, stats cgo.Stats) {
	if !span.Recorded() {
		return
	}
	span.Set(attribute.Int("barkd.piece", i), attribute.Int("barkd.text_tokens", stats.TextTokens),
		attribute.Int("barkd.semantic_tokens", stats.SemanticTokens), attribute.Int("barkd.frames", stats.Frames))
	for stage, ms := range stats.StageMS {
		took := time.Duration(ms * float64(time.Millisecond))
		span.Part(ctx, cgo.Stage(stage).String(), began, took)
		began = began.Add(took)
	}
}
