package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/alecthomas/kong"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"barkd/cgo"
	"barkd/server/api"
	"barkd/server/tracing"
)

// openAPI describes the HTTP API.
//
//go:embed openapi.yaml
var openAPI []byte

// serveCommand is `barkd serve`. Its settings are texts until config has looked at all of them.
type serveCommand struct {
	runtimeFlags
	cacheFlags
	voiceFlags
	jobFlags
	Config                string `var:"BARKD_CONFIG" placeholder:"FILE" help:"YAML file of settings, by the names of their variables in lower case; the environment goes before it."`
	PrintConfig           bool   `help:"Show the settings and where each comes from, and serve nothing."`
	Host                  string `var:"HOST" placeholder:"ADDR" help:"Address to listen on; default is all."`
	Port                  string `var:"PORT" default:"8000" placeholder:"8000" help:"Port to listen on; 0 picks one."`
	DefaultModel          string `var:"DEFAULT_MODEL" default:"barkd/tiny" placeholder:"ID" help:"Model of requests that name none, or one of ElevenLabs'."`
	MaxConcurrentRequests string `var:"MAX_CONCURRENT_REQUESTS" live:"" default:"16" placeholder:"16" help:"Most requests that speak at one time."`
	MaxQueuedRequests     string `var:"MAX_QUEUED_REQUESTS" live:"" default:"64" placeholder:"64" help:"Most requests that wait; more are answered 503."`
	MaxQueuedPerModel     string `var:"MAX_QUEUED_PER_MODEL" live:"" default:"32" placeholder:"32" help:"Most requests that wait for one model."`
	APIKeys               string `name:"api-keys" var:"API_KEYS" live:"" secret:"" placeholder:"KEY,KEY" help:"Keys that clients must show; none lets everybody in. Or a YAML list with names and limits, see the README."`
	RateLimitRequests     string `var:"RATE_LIMIT_REQUESTS" live:"" default:"0" placeholder:"0" help:"Most requests to speak a minute, of each key without a limit of its own, or of everybody; 0 is no limit."`
	RateLimitCharacters   string `var:"RATE_LIMIT_CHARACTERS" live:"" default:"0" placeholder:"0" help:"The same of the characters of their texts."`
	RateLimitConcurrent   string `var:"RATE_LIMIT_CONCURRENT" live:"" default:"0" placeholder:"0" help:"The same of requests at one time."`
	RequestTimeoutSeconds string `var:"REQUEST_TIMEOUT_SECONDS" live:"" default:"0" placeholder:"0" help:"How long a request may take until its answer begins, then it is answered 504; 0 is no bound."`
	MaxInputChars         string `var:"MAX_INPUT_CHARS" live:"" default:"65536" placeholder:"65536" help:"Most characters of a text."`
	MaxBodyBytes          string `var:"MAX_BODY_BYTES" default:"1048576" placeholder:"1048576" help:"Largest request body of JSON."`
	TLSCert               string `name:"tls-cert" var:"TLS_CERT" placeholder:"FILE" help:"Certificate (PEM, with its chain) to serve HTTPS with; read again at SIGHUP."`
	TLSKey                string `name:"tls-key" var:"TLS_KEY" placeholder:"FILE" help:"Its private key."`
	CORSOrigins           string `name:"cors-origins" var:"CORS_ORIGINS" placeholder:"ORIGIN,ORIGIN" help:"Origins whose pages may use the server, such as https://example.com; * is all; default is none."`
	AdminAddr             string `var:"ADMIN_ADDR" placeholder:"ADDR:PORT" help:"Serve /cache/* here and nowhere else."`
	AdminKey              string `var:"ADMIN_KEY" live:"" secret:"" placeholder:"KEY" help:"Key that /cache/* asks for; without it any of API_KEYS."`
	AgentAddr             string `var:"AGENT_ADDR" placeholder:"ADDR:PORT" help:"Answer HAProxy's agent-check here."`
	DrainSeconds          string `var:"DRAIN_SECONDS" default:"0" placeholder:"0" help:"How long after SIGTERM requests are still taken, so that routers learn of it."`
	ShutdownGraceSeconds  string `var:"SHUTDOWN_GRACE_SECONDS" default:"30" placeholder:"30" help:"How long running requests may finish after SIGTERM."`
	LogLevel              string `var:"LOG_LEVEL" live:"" default:"info" placeholder:"info" help:"debug, info, warn or error."`
	LogFormat             string `var:"LOG_FORMAT" default:"auto" placeholder:"auto" help:"json, console, or auto: console on a terminal."`
}

// cacheFlags say how models are kept.
type cacheFlags struct {
	MaxCachedModels     string `var:"MAX_CACHED_MODELS" live:"" default:"3" placeholder:"3" help:"Most models in memory."`
	CacheBudget         string `var:"CACHE_BUDGET" live:"" default:"auto" placeholder:"auto" help:"Bytes for models and their sessions: 8GB, or by device cpu=8GB,cuda:0=20GB; auto is 80 % of the memory."`
	Devices             string `var:"DEVICES" default:"auto" placeholder:"auto" help:"Where models may be: cuda:0,cuda:1 or cpu. The CPU beside GPUs takes what they cannot have at all. auto is every device."`
	ModelDevices        string `var:"MODEL_DEVICES" placeholder:"ID=DEVICE,ID=DEVICE" help:"Where single models may be: suno/bark=cuda:1, or with a second choice suno/bark=cuda:1|cpu."`
	AudioCacheBytes     string `var:"AUDIO_CACHE_BYTES" default:"64MB" placeholder:"64MB" help:"Most bytes of finished speech to keep for requests that ask for the same with the same seed; 0 keeps none."`
	KeepAlive           string `var:"KEEP_ALIVE" live:"" default:"-1" placeholder:"-1" help:"How long an idle model stays: 5m, 300; -1 for ever, 0 not at all."`
	KVType              string `name:"kv-type" var:"KV_TYPE" default:"f16" placeholder:"f16" help:"Type of the sessions' key-value cache: f16, i8 (half the memory, less exact; CPU) or f32."`
	PinnedModels        string `var:"PINNED_MODELS" placeholder:"ID,ID" help:"Models that are never evicted; they are loaded first."`
	CacheWarmupEnabled  string `var:"CACHE_WARMUP_ENABLED" default:"true" placeholder:"true" help:"Load models at start, in the background."`
	WarmupModels        string `var:"WARMUP_MODELS" default:"suno/bark-small,suno/bark" placeholder:"ID,ID" help:"Which; those not on this machine are skipped. auto: those that were asked for most."`
	ReadyTimeoutSeconds string `var:"READY_TIMEOUT_SECONDS" default:"300" placeholder:"300" help:"How long /readyz waits for the warm-up."`
	ModelWaitSeconds    string `var:"MODEL_WAIT_SECONDS" default:"120" placeholder:"120" help:"How long a request waits for its model; then it is answered 503."`
	LoadTimeoutSeconds  string `var:"LOAD_TIMEOUT_SECONDS" default:"900" placeholder:"900" help:"How long a load may take before it counts as hung."`
	MemoryThresholdGB   string `name:"memory-threshold-gb" var:"MEMORY_THRESHOLD_GB" live:"" default:"12.0" placeholder:"12.0" help:"Memory in use on the machine above which idle models are given back."`
	MemoryCheckInterval string `var:"MEMORY_CHECK_INTERVAL" default:"60" placeholder:"60" help:"Seconds between looks at the memory where the kernel sends no events."`
	GCIntervalSeconds   string `name:"gc-interval-seconds" var:"GC_INTERVAL_SECONDS" default:"300" placeholder:"300" help:"Seconds between giving freed memory back to the system."`
	CacheTrace          string `var:"CACHE_TRACE" placeholder:"FILE" help:"Record the cache's requests, for 'barkd cache replay'."`
	CacheState          string `var:"CACHE_STATE" placeholder:"FILE" help:"Where the access pattern is kept for WARMUP_MODELS=auto; off for nowhere."`
}

// Run serves until ctx ends, reloading its settings at SIGHUP, then shuts down in order: not ready, go on for the drain,
// refuse new requests, let running ones finish for the grace, cancel them, stop what runs in the background, free the
// models.
func (c *serveCommand) Run(ctx context.Context, io stdio, env environ, parsed *kong.Context, file *configFile, again parse) error {
	settings := effective(parsed, file)
	if c.PrintConfig {
		if err := printSettings(io.out, settings); err != nil {
			return err
		}
	}
	cfg, err := c.config(file.problems...)
	if err != nil || c.PrintConfig {
		return err
	}
	level := from(cfg.logLevel)
	log := newLog(io.err, level, cfg.logFormat)
	traces, err := tracing.Open(ctx, env.get, version, log)
	if err != nil {
		return &usageError{err}
	}
	b, err := openBackend(cfg.runtime, log)
	if err != nil {
		return err
	}
	made, err := cfg.voices.open(env.get, log)
	if err != nil {
		return err
	}
	secured, err := openCertificate(cfg.tls)
	if err != nil {
		return err
	}
	listeners, err := listen(cfg, secured)
	if err != nil {
		return err
	}
	defer listeners.close()
	h, err := openHouse(ctx, b, cfg, log)
	if err != nil {
		return err
	}
	queue, err := cfg.jobs.open(ctx, env.get, log)
	if err != nil {
		return errors.Join(err, h.close(), traces.Close())
	}
	options := api.Options{
		Speaker: h.speaker, Audio: h.speaker.Audio(), Digest: h.digests.Digest, KnownDigest: h.digests.Known, Build: build(h.pool.Devices()),
		Catalogue: b.catalogue, Cache: h.pool, Machine: h.machine, Warmup: h.warmup, Metrics: h.metrics,
		Log: log, Version: version, Backend: b.name, DefaultModel: c.DefaultModel, KV: cfg.cache.kv,
		ReadyPatience: cfg.cache.readyPatience, AdminApart: listeners.admin != nil, MaxBodyBytes: cfg.maxBody, CORSOrigins: cfg.origins, Rules: cfg.rules,
		OpenAPI: openAPI, Tracer: traces.Tracer(), Voices: made, GenerationBytes: cfg.voices.generationsBytes,
	}
	if queue != nil {
		options.Jobs = queue
		defer queue.Close()
	}
	server := api.New(options)
	stop := h.start(ctx)
	handOff := work(ctx, queue, cfg.jobs.workers, server)
	running := &live{parse: again, settings: settings, server: server, house: h, certificate: secured, level: level, log: log}
	stopFollowing := running.follow()
	err = serve(ctx, server, listeners, cfg, log)
	stopFollowing()
	handOff()
	stop()
	return errors.Join(err, h.close(), traces.Close())
}

// build names the program and the code paths of its devices: what audio depends on beside the request.
func build(devices []cgo.Device) string {
	name := version
	for _, d := range devices {
		name += " " + d.Detail
	}
	return name
}

// newLog writes to w the lines that the filter lets through; it gets w for its own.
func newLog(w io.Writer, filter *levelFilter, format string) zerolog.Logger {
	file, ok := w.(*os.File)
	if format == "console" || format == "auto" && ok && isatty.IsTerminal(file.Fd()) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
	}
	filter.Writer = w
	return zerolog.New(filter).With().Timestamp().Logger()
}

// listeners are where the server answers; admin is nil when /cache/* has no place of its own, agent when
// HAProxy does not ask. The agent's port speaks no HTTP and no TLS.
type listeners struct {
	public, admin, agent net.Listener
	certificate          *certificate
}

func listen(cfg serverConfig, secured *certificate) (listeners, error) {
	l := listeners{certificate: secured}
	var err error
	if l.public, err = net.Listen("tcp", cfg.address); err != nil {
		return l, fmt.Errorf("cannot listen: %w", err)
	}
	if cfg.admin != "" {
		if l.admin, err = net.Listen("tcp", cfg.admin); err != nil {
			l.close()
			return l, fmt.Errorf("cannot listen for ADMIN_ADDR: %w", err)
		}
	}
	if cfg.agent != "" {
		if l.agent, err = net.Listen("tcp", cfg.agent); err != nil {
			l.close()
			return l, fmt.Errorf("cannot listen for AGENT_ADDR: %w", err)
		}
	}
	l.public, l.admin = secured.listener(l.public), secured.listener(l.admin)
	return l, nil
}

// close closes what no server has closed; a second close of a listener only says so.
func (l listeners) close() {
	for _, one := range []net.Listener{l.public, l.admin, l.agent} {
		if one != nil {
			_ = one.Close()
		}
	}
}

// warnOpen says who can use a server that asks for no keys.
func warnOpen(l listeners, rules api.Rules, log zerolog.Logger) {
	switch {
	case len(rules.Keys) > 0 && rules.Admin == nil:
		log.Warn().Msg("there is no ADMIN_KEY: whoever has one of API_KEYS may manage the cache")
	case len(rules.Keys) > 0:
	case loopback(l.public):
		log.Info().Msg("there are no API_KEYS: every program of this machine may use the server")
	default:
		log.Warn().Stringer("address", l.public.Addr()).
			Msg("there are no API_KEYS and the address is no loopback: everyone who can reach this machine may use the server")
	}
}

// loopback says whether only this machine reaches the listener.
func loopback(l net.Listener) bool {
	at, ok := l.Addr().(*net.TCPAddr)
	return ok && at.IP.IsLoopback()
}

// serve answers until ctx ends and every request is answered.
func serve(ctx context.Context, server *api.Server, l listeners, cfg serverConfig, log zerolog.Logger) error {
	served := make(chan error, 2)
	var serving sync.WaitGroup
	serving.Go(func() { served <- server.Serve(l.public) })
	line := log.Info().Str("address", l.public.Addr().String())
	if l.admin != nil {
		serving.Go(func() { served <- server.ServeAdmin(l.admin) })
		line = line.Str("admin", l.admin.Addr().String())
	}
	if l.agent != nil {
		serving.Go(func() { server.ServeAgent(l.agent) })
		line = line.Str("agent", l.agent.Addr().String())
	}
	if l.certificate != nil {
		line = line.Time("certificate_until", l.certificate.until())
	}
	warnOpen(l, cfg.rules, log)
	line.Str("version", version).Str("backend", server.Backend).Msg("serving")
	var failed error
	select {
	case failed = <-served: // a listener broke: the other one has no use alone
	case <-ctx.Done():
		log.Info().Dur("drain_ms", cfg.drain).Dur("grace_ms", cfg.grace).Msg("shutting down")
		server.Drain()
		select {
		case <-time.After(cfg.drain):
		case failed = <-served:
		}
	}
	patience, cancel := context.WithTimeout(context.Background(), cfg.grace)
	defer cancel()
	failed = errors.Join(failed, server.Shutdown(patience))
	l.close() // the agent's last: it says drain until here
	serving.Wait()
	close(served)
	for err := range served {
		failed = errors.Join(failed, err)
	}
	return failed
}
