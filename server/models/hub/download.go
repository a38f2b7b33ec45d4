package hub

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// ProgressFunc is told how many of the bytes of all files are there, and which file brought the last. It is called by
// one goroutine at a time. done shrinks when a file has to start again.
type ProgressFunc func(done, total int64, file string)

// Resolve returns the commit that revision (empty for main) is, and the files a Bark model needs of it, with their
// sizes and digests. Offline, it returns what the cache has, or says what is missing.
func (c *Client) Resolve(ctx context.Context, id, revision string) (Repo, error) {
	revision = firstOf(revision, "main")
	if err := CheckID(id); err != nil {
		return Repo{}, err
	}
	if err := CheckRevision(revision); err != nil {
		return Repo{}, err
	}
	if c.cfg.Offline {
		return c.cached(id, revision)
	}
	repo, err := c.listing(ctx, id, revision)
	if err != nil {
		return Repo{}, c.hintOffline(err, id, revision)
	}
	if repo.Files, err = selectBark(id, repo.Files); err != nil {
		return Repo{}, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.opts.Workers)
	for i, f := range repo.Files {
		if f.known() {
			continue
		}
		group.Go(func() error {
			f, err := c.describe(ctx, repo, f)
			repo.Files[i] = f
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Repo{}, err
	}
	return repo, nil
}

// hintOffline adds the way out to a network failure, where the cache has the model.
func (c *Client) hintOffline(err error, id, revision string) error {
	if cached, cacheErr := c.cached(id, revision); cacheErr == nil && isNetwork(err) {
		return fmt.Errorf("%w; HF_HUB_OFFLINE=1 uses the copy of commit %.12s that the cache has", err, cached.Commit)
	}
	return err
}

// Download brings the files, of those that Resolve returned, into the cache and returns the snapshot's folder, in
// which each lies under its own path. Every byte that is fetched is verified before it gets its name there. The
// revision is recorded in the cache when all of the repository's files are there.
func (c *Client) Download(ctx context.Context, repo Repo, files []File, progress ProgressFunc) (string, error) {
	k := c.cache(repo.ID)
	dir := k.snapshot(repo.Commit)
	if c.cfg.Offline {
		return dir, nil // Resolve has seen the files
	}
	if err := os.MkdirAll(filepath.Join(k.root, "blobs"), 0o755); err != nil {
		return "", cacheError(err)
	}
	if err := c.checkSpace(k, files); err != nil {
		return "", err
	}
	// The largest first: the many small ones then fill the other workers' time.
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return int(min(1, max(-1, b.Size-a.Size))) })
	t := &tally{fn: progress}
	for _, f := range files {
		t.total += f.Size
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(c.opts.Workers)
	for _, f := range files {
		group.Go(func() error { return c.bring(groupCtx, repo, k, f, t) })
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	if !slices.ContainsFunc(repo.Files, func(f File) bool { return !k.has(f) }) {
		return dir, k.setRef(repo.Revision, repo.Commit)
	}
	return dir, nil
}

// checkSpace refuses a download that cannot fit, before it starts.
func (c *Client) checkSpace(k cache, files []File) error {
	var need int64
	counted := make(map[string]bool, len(files))
	for _, f := range files {
		if !counted[f.Blob()] && !k.has(f) {
			need += f.Size - k.partialBytes(f)
		}
		counted[f.Blob()] = true
	}
	free, err := c.opts.FreeBytes(k.root)
	if err != nil {
		return cacheError(err)
	}
	if need > free {
		return fmt.Errorf("%w: %.3f GB are still to be downloaded and %s has %.3f GB free: free some, or set HF_HUB_CACHE to another disk",
			ErrNoSpace, float64(need)/1e9, c.cfg.CacheDir, float64(free)/1e9)
	}
	return nil
}

// bring makes one file appear in the snapshot, from the hub unless its blob is there.
func (c *Client) bring(ctx context.Context, repo Repo, k cache, f File, t *tally) error {
	if !k.has(f) {
		unlock, err := k.lock(ctx, c, f)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if k.has(f) { // perhaps the other program's work
		t.add(f.Size, f.Path)
	} else if err := c.fetch(ctx, repo, k, f, t); err != nil {
		return fmt.Errorf("download %s of %s: %w", f.Path, repo.ID, err)
	}
	return k.link(repo.Commit, f)
}

// tally adds up the progress of all files.
type tally struct {
	fn          ProgressFunc
	mu          sync.Mutex
	done, total int64
}

func (t *tally) add(n int64, file string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
	if t.fn != nil {
		t.fn(t.done, t.total, file)
	}
}
