// Package api is the HTTP face of barkd: the route table, the handlers and the one place that turns errors into
// responses. It knows Fiber and speech, and nothing of where models come from.
package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/gofiber/fiber/v2/middleware/cors"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace"

	"barkd/cgo"
	"barkd/server/metrics"
	"barkd/server/speech"
	"barkd/server/voices"
)

// Up to readBytes (or MaxBodyBytes, if that is more) a body is read before it is refused: a client still writing when its
// connection closes would see no answer at all.
const readBytes = 8 << 20

const maxWarmup = 64 // ids in one call

// corsMaxAge is how long, in seconds, a browser may remember that a page may use the server.
const corsMaxAge = 600

// Connections that say nothing must not stay for ever. There is no write timeout: it would bound the whole response.
const (
	readTimeout = 30 * time.Second
	idleTimeout = 2 * time.Minute

	answerPatience = 5 * time.Second // for answers on their way when the grace is over
	partPatience   = time.Second     // for clients of kept connections to be told that the server is leaving
)

// errClientGone and errDraining are the causes for which a handler's context ends.
var (
	errClientGone = errors.New("the client is gone")
	errDraining   = errors.New("the server is shutting down")
)

// Speaker makes speech; *speech.Sharing is one.
type Speaker interface {
	// Content names the audio of a request that has a seed.
	Content(ctx context.Context, req speech.Request) (speech.Content, error)
	Speak(ctx context.Context, req speech.Request, sink speech.Sink) (speech.Result, error)
	// CheckVoice says whether a model takes the arrays as a voice.
	CheckVoice(ctx context.Context, model string, arrays cgo.VoiceArrays) error
	// Load says how many requests run and how many wait.
	Load() (running, waiting int)
}

// AudioCache keeps finished audio; *speech.AudioCache is one.
type AudioCache interface {
	Stats() speech.AudioStats
	Clear() (freedBytes int64)
}

// Catalogue knows the models that can be loaded, without loading them.
type Catalogue interface {
	List(ctx context.Context) ([]Model, error)
	// Find returns one of them; its error wraps cgo.ErrNotFound when there is none of that id.
	Find(ctx context.Context, id string) (Model, error)
}

// Options of a Server. All fields are needed but AdminApart, CORSOrigins, Rules, Voices, Jobs and GenerationBytes.
type Options struct {
	Speaker Speaker
	Audio   AudioCache
	// Digest returns the SHA-256 of a version of a model's file, in hexadecimal.
	Digest func(ctx context.Context, model, version string) (string, error)
	// KnownDigest returns that of the file as it is now, "" if it has not been read.
	KnownDigest func(model string) string
	Catalogue   Catalogue
	Cache       Cache
	Machine     Machine
	Warmup      Warmup
	Metrics     *metrics.Metrics
	Log         zerolog.Logger
	Version     string
	Backend     string // "native" or "mock"
	// Build names what decides on the audio's bits beside model and request: the program and the machine's code path.
	Build string
	// ReadyPatience bounds how long readiness waits for the warm-up.
	ReadyPatience time.Duration
	// AdminApart serves /cache/* on a listener of its own only.
	AdminApart bool
	// CORSOrigins are those whose pages may use the server: "https://example.com", or "*" alone for all.
	CORSOrigins []string
	// MaxBodyBytes is the largest body of JSON that is read.
	MaxBodyBytes int
	// Rules are those to begin with.
	Rules Rules
	// Tracer begins the span of each request; nil for none.
	Tracer trace.Tracer
	// OpenAPI is openapi.yaml.
	OpenAPI []byte
	// KV is the type of the sessions' key-value cache.
	KV cgo.KVType
	// DefaultModel is the id whose voices /v1/audio/voices lists when the query names none.
	DefaultModel string
	// Voices keeps the voices that people make; nil keeps none.
	Voices *voices.Store
	// Jobs takes orders that nobody waits for; nil takes none.
	Jobs Jobs
	// GenerationBytes bounds the tokens of recent speech, from which a voice can be kept; 0 holds none.
	GenerationBytes int64
}

// Server serves the API.
type Server struct {
	Options
	recent   *generations
	app      *fiber.App
	adminApp *fiber.App // nil unless AdminApart
	scrape   fiber.Handler
	started  time.Time
	changing sync.Mutex // of the door
	door     atomic.Pointer[door]
	// leavesSoon: routers are told to send nothing new. draining: what they send is refused.
	leavesSoon, draining atomic.Bool
	leaving              chan struct{}   // closed when the server begins to shut down
	base                 context.Context // of every request; ends when the grace of Shutdown is over
	stop                 context.CancelCauseFunc
	refusals             pace
	specAsJSON           func() ([]byte, error)
	public               atomic.Pointer[listener]
	open                 atomic.Int64  // connections of app
	empty                chan struct{} // has one when open becomes 0
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	s := &Server{Options: o, recent: newGenerations(o.GenerationBytes), started: time.Now(), leaving: make(chan struct{}),
		empty: make(chan struct{}, 1)}
	s.SetRules(o.Rules)
	s.specAsJSON = sync.OnceValues(func() ([]byte, error) { return toJSON(s.OpenAPI) })
	s.base, s.stop = context.WithCancelCause(context.Background())
	s.scrape = adaptor.HTTPHandler(o.Metrics.Handler())
	if o.AdminApart {
		s.app = s.newApp(sidePublic)
		s.adminApp = s.newApp(sideAdmin)
	} else {
		s.app = s.newApp(sideBoth)
	}
	s.app.Server().ConnState = s.count
	return s
}

// count keeps the number of open connections.
func (s *Server) count(_ net.Conn, state fasthttp.ConnState) {
	switch state {
	case fasthttp.StateNew:
		s.open.Add(1)
	case fasthttp.StateClosed:
		if s.open.Add(-1) == 0 {
			select {
			case s.empty <- struct{}{}:
			default:
			}
		}
	}
}

// newApp makes the app of one side; sideBoth is an app for every route.
func (s *Server) newApp(of side) *fiber.App {
	app := fiber.New(fiber.Config{
		AppName:               "barkd",
		DisableStartupMessage: true,
		CaseSensitive:         true,
		BodyLimit:             max(readBytes, s.MaxBodyBytes),
		// A form is read by its handler, which says what is wrong with it.
		DisablePreParseMultipartForm: true,
		ReadTimeout:                  readTimeout,
		IdleTimeout:                  idleTimeout,
		ErrorHandler:                 s.refuse,
		RequestMethods:               append(slices.Clone(fiber.DefaultMethods), "QUERY"),
	})
	s.refuseUnknownMethods(app)
	app.Server().Logger = connectionLog{s.Log}
	if len(s.CORSOrigins) > 0 { // first, so that a page can read every answer, of errors, too
		app.Use(cors.New(cors.Config{AllowOrigins: strings.Join(s.CORSOrigins, ","), ExposeHeaders: "*", MaxAge: corsMaxAge}))
	}
	app.Use(s.observe)
	for _, r := range s.routes() {
		if of != sideBoth && r.side != sideBoth && r.side != of {
			continue
		}
		handler := s.guard(r)
		path := strings.Replace(r.Path, "*", "+", 1) // Fiber's star may stand for nothing
		app.Add(r.Method, path, handler)
		if r.Method == fiber.MethodGet {
			app.Add(fiber.MethodHead, path, handler)
		}
	}
	return app
}

// refuseUnknownMethods answers what Fiber would refuse in a form of its own.
func (s *Server) refuseUnknownMethods(app *fiber.App) {
	next, known := app.Server().Handler, app.Config().RequestMethods
	app.Server().Handler = func(ctx *fasthttp.RequestCtx) {
		if slices.Contains(known, string(ctx.Method())) {
			next(ctx)
			return
		}
		c := app.AcquireCtx(ctx)
		defer app.ReleaseCtx(c)
		if err := s.refuse(c, fiber.ErrNotImplemented); err != nil {
			s.Log.Error().Err(err).Msg("a request of an unknown method was not answered")
		}
	}
}

// metrics is GET /metrics.
func (s *Server) metrics(c *fiber.Ctx) error { return s.scrape(c) }

// Serve answers on the listener until Shutdown.
func (s *Server) Serve(on net.Listener) error {
	public := &listener{Listener: on}
	s.public.Store(public)
	return serve(s.app, public)
}

// listener may be closed more than once.
type listener struct {
	net.Listener
	once sync.Once
	err  error
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

// ServeAdmin answers the operator's routes on a listener of their own until Shutdown; AdminApart must be set.
func (s *Server) ServeAdmin(on net.Listener) error { return serve(s.adminApp, on) }

func serve(app *fiber.App, on net.Listener) error {
	if err := app.Listener(on); err != nil {
		return fmt.Errorf("serve on %s: %w", on.Addr(), err)
	}
	return nil
}

// Drain says that the server is not ready, so that routers send nothing new, and answers what they still send. Shutdown
// is to follow.
func (s *Server) Drain() { s.leavesSoon.Store(true) }

// Shutdown says that the server is not ready, stops accepting, lets running requests finish until ctx ends, then
// cancels them and waits for their answers; not for ever, for a client may not read its own. It is called once. The
// operator's listener goes last, so that the shutdown can be watched.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.draining.Store(true)
	if public := s.public.Load(); public != nil {
		_ = public.Close() // fasthttp closes it again, and says if that failed
	}
	close(s.leaving)
	patience, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	stopWatching := context.AfterFunc(ctx, func() {
		s.stop(errDraining)
		time.AfterFunc(answerPatience, giveUp)
	})
	defer stopWatching()
	s.part(ctx)
	err := s.app.ShutdownWithContext(patience)
	s.stop(errDraining)
	if s.adminApp != nil {
		err = errors.Join(err, s.adminApp.ShutdownWithTimeout(answerPatience))
	}
	if err != nil {
		return fmt.Errorf("shut down with clients that do not read their answers: %w", err)
	}
	return nil
}

// part gives the clients of open connections a moment to ask once more and be told, with 'Connection: close', that it
// was the last time: fasthttp closes idle connections without a word, and a request just on its way would be lost.
func (s *Server) part(ctx context.Context) {
	moment, stop := context.WithTimeout(ctx, partPatience)
	defer stop()
	for s.open.Load() > 0 {
		select {
		case <-s.empty:
		case <-moment.Done():
			return
		}
	}
}

// connectionLog takes what fasthttp says about broken connections: nothing that a server's owner must act on.
type connectionLog struct{ zerolog.Logger }

// Printf implements fasthttp.Logger.
func (l connectionLog) Printf(format string, args ...any) {
	l.Debug().Msgf(strings.TrimSpace(format), args...)
}
