package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"barkd/cgo"
	"barkd/cgo/cache"
	"barkd/server/audio"
	"barkd/server/speech"
)

// statusClientGone is what nginx calls "client closed request"; nobody reads it but the log.
const statusClientGone = 499

// OpenAI's names of what went wrong.
const (
	typeInvalid = "invalid_request_error"
	typeServer  = "server_error"

	typeRateLimit = "rate_limit_error"
)

// retrySoon is the Retry-After of a condition whose end cannot be estimated.
const retrySoon = 5 * time.Second

// Error is a failed request as its sender sees it.
type Error struct {
	Status     int
	Type       string
	Code       string // "" for none
	Param      string // "" for none
	Message    string
	RetryAfter time.Duration
	err        error // for the log
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause, which is not shown to the client.
func (e *Error) Unwrap() error { return e.err }

// envelope is OpenAI's form of an error: all four keys are always there.
type envelope struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

func badRequest(param, code, format string, args ...any) *Error {
	return &Error{Status: fiber.StatusBadRequest, Type: typeInvalid, Param: param, Code: code, Message: fmt.Sprintf(format, args...)}
}

// unsupportedFormat is about a format that exists but not here, or not for this model.
func unsupportedFormat(err error) *Error {
	e := badRequest("response_format", "unsupported_format", "The server cannot write this: %s; it has %s.", err,
		strings.Join(audio.AvailableNames(), ", "))
	e.err = err
	return e
}

// modelError says which model an error is about.
type modelError struct {
	id  string
	err error
}

func (e *modelError) Error() string { return fmt.Sprintf("model %q: %v", e.id, e.err) }
func (e *modelError) Unwrap() error { return e.err }

// pullable are the ids that a hub can have, and that are safe to paste into a shell.
var pullable = regexp.MustCompile(`^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$`)

func modelNotFound(id string, err error) *Error {
	message := fmt.Sprintf("There is no model %q here; GET /v1/models lists those there are.", id)
	if pullable.MatchString(id) {
		message += fmt.Sprintf(" 'barkd pull %s' fetches it from the hub.", id)
	}
	return &Error{Status: fiber.StatusNotFound, Type: typeInvalid, Param: "model", Code: "model_not_found", Message: message, err: err}
}

// toError is the one error mapper: every failure of every handler becomes a response here.
func toError(err error, cause error) *Error {
	var (
		ready *Error
		fail  *fiber.Error
		input *speech.InputError
		full  *speech.QueueFullError
		late  *speech.TooLateError
		slow  *timeoutError

		refused *cache.Refusal
	)
	switch {
	case errors.As(err, &ready):
		return ready
	case errors.Is(cause, errClientGone):
		return clientGone(err)
	case errors.As(err, &fail):
		return routingError(fail)
	case errors.As(err, &input):
		e := badRequest(input.Param, "", "%s", input.Message)
		e.err = err
		return e
	case errors.Is(err, audio.ErrUnavailable):
		return unsupportedFormat(err)
	case errors.As(err, &full):
		return unavailable("overloaded", "The server is busy: "+full.Error()+".", full.RetryAfter, err)
	case errors.As(err, &late):
		return unavailable("timeout_too_short", "The server is busy: "+late.Error()+".", late.RetryAfter, err)
	case errors.As(cause, &slow):
		return &Error{Status: fiber.StatusGatewayTimeout, Type: typeServer, Code: "timeout",
			Message: "The answer did not begin within the timeout of " + slow.after.String() + ".", err: errors.Join(cause, err)}
	case errors.As(err, &refused) && !errors.Is(cause, errDraining):
		return refusal(refused, err)
	case errors.Is(err, speech.ErrRevoked):
		return unavailable("evicted", "The request was ended: its model was taken out of the cache by force.", retrySoon, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		if errors.Is(cause, errDraining) {
			return unavailable("shutting_down", "The server is shutting down.", retrySoon, err)
		}
		return unavailable("timeout", "The request took too long.", retrySoon, err)
	}
	return runtimeError(err)
}

func clientGone(err error) *Error {
	return &Error{Status: statusClientGone, Type: typeInvalid, Code: "client_gone", Message: "The client is gone.", err: err}
}

// refusal says why the cache cannot have a model now, what is in the way, and when to come back.
func refusal(r *cache.Refusal, err error) *Error {
	message := "The model cannot be loaded now: " + r.Error() + "."
	switch r.Code {
	case cache.RefusedTooLarge:
		return &Error{Status: fiber.StatusBadRequest, Type: typeInvalid, Param: "model", Code: "model_too_large",
			Message: "The model does not fit this server's memory: " + r.Error() + ".", err: err}
	case cache.RefusedCooling:
		// The failed load's own status, but for the time to wait.
		e := runtimeError(&modelError{id: r.Key, err: r.Err})
		cooled := *e
		cooled.RetryAfter, cooled.err = r.RetryAfter, err
		if cooled.Status >= fiber.StatusInternalServerError {
			cooled.Status, cooled.Code = fiber.StatusServiceUnavailable, "model_cooling_down"
			cooled.Message += " It is not tried again before Retry-After."
		}
		return &cooled
	case cache.RefusedLost:
		return unavailable("device_lost", message+" It works again when the server is started again.", retrySoon, err)
	case cache.RefusedWaiting:
		code := "model_loading"
		if len(r.Blockers) > 0 {
			code = "insufficient_memory"
		}
		return unavailable(code, "The model could not be had in time: "+r.Error()+".", r.RetryAfter, err)
	}
	return unavailable("insufficient_memory", message, max(r.RetryAfter, retrySoon), err)
}

// runtimeError maps what the runtime and the models say; anything it does not know is a 500 that shows nothing.
func runtimeError(err error) *Error {
	var model *modelError
	id := ""
	if errors.As(err, &model) {
		id = model.id
	}
	switch {
	case errors.Is(err, cgo.ErrNotFound) && id != "":
		return modelNotFound(id, err)
	case errors.Is(err, cgo.ErrInvalidArgument):
		e := badRequest("", "", "%s", err)
		e.err = err
		return e
	case errors.Is(err, cgo.ErrUnsupported):
		return &Error{Status: fiber.StatusNotImplemented, Type: typeServer, Code: "unsupported",
			Message: "This build of the server cannot do that; its log says more.", err: err}
	case errors.Is(err, cgo.ErrOutOfMemory):
		return unavailable("insufficient_memory", "There is not enough memory for this request now.", retrySoon, err)
	case errors.Is(err, cgo.ErrTimeout):
		return unavailable("load_timeout", "The model did not load in time; the server's log says more.", retrySoon, err)
	case errors.Is(err, cgo.ErrBusy):
		return unavailable("overloaded", "The server is busy.", retrySoon, err)
	case errors.Is(err, cgo.ErrClosed):
		return unavailable("shutting_down", "The server is shutting down.", retrySoon, err)
	case errors.Is(err, cgo.ErrLost):
		return unavailable("device_lost", "The device that ran the model is lost; the server goes on without it.", retrySoon, err)
	case errors.Is(err, cgo.ErrDevice):
		return unavailable("device_failed", "The device that runs the model failed.", retrySoon, err)
	case errors.Is(err, cgo.ErrBadModel):
		return internal("model_invalid", fmt.Sprintf("The file of the model %q is damaged or of another kind; the server's log says more.", id), err)
	}
	return internal("internal_error", "The server failed; its log says more under this request's id.", err)
}

func unavailable(code, message string, retryAfter time.Duration, err error) *Error {
	return &Error{Status: fiber.StatusServiceUnavailable, Type: typeServer, Code: code, Message: message, RetryAfter: retryAfter, err: err}
}

func internal(code, message string, err error) *Error {
	return &Error{Status: fiber.StatusInternalServerError, Type: typeServer, Code: code, Message: message, err: err}
}

// routingError maps what Fiber says before a handler runs.
func routingError(err *fiber.Error) *Error {
	e := &Error{Status: err.Code, Type: typeInvalid, Message: err.Message, err: err}
	switch err.Code {
	case fiber.StatusNotFound:
		e.Code, e.Message = "unknown_url", "There is no such route."
	case fiber.StatusMethodNotAllowed:
		e.Code, e.Message = "method_not_allowed", "This route has no such method; the Allow header names those it has."
	case fiber.StatusRequestEntityTooLarge:
		e.Code, e.Message = "request_too_large", "The request is larger than the server takes (MAX_BODY_BYTES)."
	case fiber.StatusNotImplemented:
		e.Code, e.Message = "unknown_method", "There is no such method."
	case fiber.StatusRequestTimeout:
		e.Code, e.Message = "request_timeout", "The request did not arrive in time."
	}
	if err.Code >= fiber.StatusInternalServerError {
		e.Type = typeServer
	}
	return e
}

// refuse answers and logs a request that Fiber gives up before it reaches the routes.
func (s *Server) refuse(c *fiber.Ctx, err error) error {
	s.Log.Info().Err(err).Str("request_id", requestID(c)).Str("client", c.IP()).Msg("request refused")
	return s.fail(c, err)
}

// fail answers a failed request.
func (s *Server) fail(c *fiber.Ctx, err error) error {
	e := toError(err, causeOf(c))
	requestID(c)
	switch e.Status {
	case fiber.StatusUnauthorized, fiber.StatusTooManyRequests, fiber.StatusServiceUnavailable, fiber.StatusGatewayTimeout:
		s.Metrics.Refused(e.Code)
	}
	if retryAfter(c, e) {
		s.hold()
	}
	switch {
	case speaksEleven(c):
		e = elevenStatus(e)
		return c.Status(e.Status).JSON(elevenDetail(c, e))
	case speaksOlder(c):
		return c.Status(e.Status).JSON(olderError(c, e))
	}
	return c.Status(e.Status).JSON(e.envelope())
}

// retryAfter sends when to come back, in whole seconds, and says whether there is such a time.
func retryAfter(c *fiber.Ctx, e *Error) bool {
	if e.RetryAfter <= 0 {
		return false
	}
	c.Set(fiber.HeaderRetryAfter, strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	return true
}

func (e *Error) envelope() envelope {
	var body envelope
	body.Error.Message, body.Error.Type = e.Message, e.Type
	if e.Param != "" {
		body.Error.Param = &e.Param
	}
	if e.Code != "" {
		body.Error.Code = &e.Code
	}
	return body
}
