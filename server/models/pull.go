package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"barkd/server/models/atomicfile"
	"barkd/server/models/convert"
	"barkd/server/models/gguf"
	"barkd/server/models/hub"
	"barkd/server/models/schema"

	"github.com/gofrs/flock"
)

// The steps that Pull reports to its ProgressFunc.
const (
	StepDownload = "download"
	StepConvert  = "convert"
)

// Pulled is the result of a Pull.
type Pulled struct {
	ID     string
	Path   string
	Commit string         // of the hub's repository
	Fresh  bool           // converted now; false: the file was there, made from the same sources
	Report convert.Report // of the conversion, if there was one
}

// Pull downloads a repository of the hub into the hub's cache and converts it into the store, under the repository's
// name. revision may be empty for main. typ is the matrices' type; its zero value is that of the source. A file made
// from the same sources is left alone, before anything is fetched. The new file replaces an older one at once
// and complete; who has the older one loaded keeps it. progress and log may be nil.
func Pull(ctx context.Context, s *Store, c *hub.Client, repo, revision string, typ convert.Type, progress ProgressFunc, log func(line string)) (Pulled, error) {
	return pull(ctx, s, c, repo, revision, typ, progress, log, convert.Convert)
}

// converter is convert.Convert; tests put their own in its place.
type converter func(context.Context, convert.Options) (convert.Report, error)

func pull(ctx context.Context, s *Store, c *hub.Client, id, revision string, typ convert.Type, progress ProgressFunc, log func(string), conv converter) (Pulled, error) {
	if progress == nil {
		progress = func(string, int64, int64, string) {}
	}
	if log == nil {
		log = func(string) {}
	}
	path, err := s.Path(id)
	if err != nil {
		return Pulled{}, err
	}
	repo, err := c.Resolve(ctx, id, revision)
	if err != nil {
		return Pulled{}, err
	}
	unlock, err := s.lock(ctx, id, path, log)
	if err != nil {
		return Pulled{}, err
	}
	defer unlock()

	pulled := Pulled{ID: id, Path: path, Commit: repo.Commit}
	sources := digestOf(repo.Files)
	if kind, ok := s.upToDate(id, path, sources, typ); ok {
		log(fmt.Sprintf("%s is up to date: %s, %s, from commit %.12s", id, path, kind, repo.Commit))
		return pulled, nil
	}
	dir, err := c.Download(ctx, repo, repo.Files, func(done, total int64, file string) { progress(StepDownload, done, total, file) })
	if err != nil {
		return Pulled{}, err
	}
	removeParts(path)
	pulled.Report, err = conv(ctx, convert.Options{
		Source: dir, Out: path, Type: typ, Name: id,
		Progress: func(done, total int64) { progress(StepConvert, done, total, "") },
	})
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("no space left in %s: free some, or set BARKD_MODELS to another disk: %w", s.dir, err)
	}
	if err != nil {
		return Pulled{}, fmt.Errorf("%s: %w", id, err)
	}
	pulled.Fresh = true
	return pulled, s.remember(id, path, repo.Commit, sources)
}

// hidden is a file of the store's own about a model.
func (s *Store) hidden(id, suffix string) string {
	return filepath.Join(s.dir, ".pulled", url.PathEscape(id)+suffix)
}

// lock keeps two pulls of one model apart, in this program or another, and makes the model's folder.
func (s *Store) lock(ctx context.Context, id, path string, log func(string)) (unlock func(), err error) {
	at := s.hidden(id, ".lock")
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.MkdirAll(filepath.Dir(path), 0o755)); err != nil {
		return nil, fmt.Errorf("models folder: %w; BARKD_MODELS names another", err)
	}
	l := flock.New(at, flock.SetPermissions(0o664))
	held, err := l.TryLock()
	if err == nil && !held {
		log(id + ": another program is pulling it; waiting")
		_, err = l.TryLockContext(ctx, 200*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("models folder: %w", err)
	}
	return func() { _ = l.Unlock() }, nil
}

// record is what a pull leaves about the file it made. The file itself names the digests of its weights and
// configuration; this covers every source, voices too, before any of them is fetched.
type record struct {
	Commit   string    `json:"commit"`
	Sources  string    `json:"sources"` // digestOf the files
	Format   int       `json:"format_version"`
	Bytes    int64     `json:"bytes"` // of the model file, which is another one if these two differ
	Modified time.Time `json:"modified"`
}

// digestOf names a set of files by their paths and contents.
func digestOf(files []hub.File) string {
	h := sha256.New()
	for _, f := range files { // sorted by path
		fmt.Fprintf(h, "%s  %s\n", f.Blob(), f.Path)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (s *Store) remember(id, path, commit, sources string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	text, err := json.Marshal(record{commit, sources, schema.FormatVersion, st.Size(), st.ModTime()})
	if err != nil {
		return err
	}
	return atomicfile.Write(s.hidden(id, ".json"), func(f *os.File) error {
		_, err := f.Write(text)
		return err
	})
}

// upToDate says whether the model file was made from these sources in the wanted type, and in which type it is.
func (s *Store) upToDate(id, path, sources string, typ convert.Type) (kind string, ok bool) {
	text, err := os.ReadFile(s.hidden(id, ".json"))
	if err != nil {
		return "", false
	}
	var r record
	if json.Unmarshal(text, &r) != nil || r.Sources != sources || r.Format != schema.FormatVersion {
		return "", false
	}
	st, err := os.Stat(path)
	if err != nil || st.Size() != r.Bytes || !st.ModTime().Equal(r.Modified) {
		return "", false
	}
	f, err := gguf.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	kind = matrixType(f)
	return kind, typ == convert.Source || string(typ) == kind
}

// removeParts deletes what conversions that were killed left beside the file. The lock says that none is running.
func removeParts(path string) {
	folder, name := filepath.Split(path)
	entries, _ := os.ReadDir(folder)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+name+".") && strings.HasSuffix(e.Name(), ".part") {
			_ = os.Remove(filepath.Join(folder, e.Name()))
		}
	}
}
