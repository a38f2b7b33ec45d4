package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/gofiber/fiber/v2"
)

const mimeEvents = "text/event-stream"

// wantsEvents says whether the client asks for server-sent events.
func wantsEvents(c *fiber.Ctx) bool {
	return strings.Contains(c.Get(fiber.HeaderAccept), mimeEvents)
}

// sendEvents answers with an event stream that write fills; stop is called when it has returned. The handler must
// return right after: the stream is written when it has.
func sendEvents(c *fiber.Ctx, stop func(), write func(*bufio.Writer)) {
	c.Set(fiber.HeaderContentType, mimeEvents)
	unbuffered(c)
	span := spanOf(c)
	c.Context().SetBodyStreamWriter(func(w *bufio.Writer) {
		defer stop()
		if span != nil {
			defer span.End()
		}
		write(w)
	})
}

// unbuffered asks what lies between to pass a stream on as it comes; nginx would hold it back.
func unbuffered(c *fiber.Ctx) {
	c.Set(fiber.HeaderCacheControl, "no-cache")
	c.Set("X-Accel-Buffering", "no")
}

// sendEvent writes one event at once. Its error is that of a client that is gone.
func sendEvent(w *bufio.Writer, name, id string, data any) error {
	if err := writeEvent(w, name, id, data); err != nil {
		return err
	}
	return w.Flush()
}

// writeEvent writes one event.
func writeEvent(w io.Writer, name, id string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("event %s: %w", name, err)
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	_, err = fmt.Fprintf(w, "%sevent: %s\ndata: %s\n\n", id, name, text)
	return err
}

// sendComment writes what clients skip.
func sendComment(w *bufio.Writer, text string) error {
	fmt.Fprintf(w, ": %s\n\n", text)
	return w.Flush()
}
