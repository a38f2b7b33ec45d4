package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

// cache is one repository's part of the shared cache. Its layout is Hugging Face's:
//
//	models--ORG--NAME/blobs/DIGEST               contents
//	models--ORG--NAME/blobs/DIGEST.incomplete    contents on their way
//	models--ORG--NAME/refs/REVISION              a commit
//	models--ORG--NAME/snapshots/COMMIT/PATH      links to ../../blobs/DIGEST
//	.locks/models--ORG--NAME/DIGEST.lock         held while that blob is written
type cache struct {
	root  string // models--ORG--NAME
	locks string
}

func (c *Client) cache(id string) cache {
	name := "models--" + strings.ReplaceAll(id, "/", "--")
	return cache{
		root:  filepath.Join(c.cfg.CacheDir, name),
		locks: filepath.Join(c.cfg.CacheDir, ".locks", name),
	}
}

func (k cache) blob(f File) string            { return filepath.Join(k.root, "blobs", f.Blob()) }
func (k cache) snapshot(commit string) string { return filepath.Join(k.root, "snapshots", commit) }
func (k cache) ref(revision string) string {
	return filepath.Join(k.root, "refs", filepath.FromSlash(revision))
}

// has says whether the blob is there. Its content was verified before it got its name; a file system that lost the end
// of it shows in the size.
func (k cache) has(f File) bool {
	st, err := os.Stat(k.blob(f))
	return err == nil && st.Mode().IsRegular() && st.Size() == f.Size
}

// partialBytes is how much of the blob is there from an earlier, interrupted download.
func (k cache) partialBytes(f File) int64 {
	st, err := os.Stat(k.blob(f) + ".incomplete")
	if err != nil {
		return 0
	}
	return min(st.Size(), f.Size)
}

// lock keeps every other program that honours the cache's locks from writing the blob. It waits for them.
func (k cache) lock(ctx context.Context, c *Client, f File) (unlock func(), err error) {
	if err := os.MkdirAll(k.locks, 0o755); err != nil {
		return nil, cacheError(err)
	}
	l := flock.New(filepath.Join(k.locks, f.Blob()+".lock"), flock.SetPermissions(0o664))
	held, err := l.TryLock()
	if err == nil && !held {
		c.opts.Log(f.Path + ": another program is downloading it; waiting")
		_, err = l.TryLockContext(ctx, c.opts.LockPoll)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, cacheError(err)
	}
	return func() { _ = l.Unlock() }, nil
}

// link makes the file appear in the snapshot.
func (k cache) link(commit string, f File) error {
	at := filepath.Join(k.snapshot(commit), filepath.FromSlash(f.Path))
	up := strings.Repeat("../", 2+strings.Count(f.Path, "/"))
	target := filepath.FromSlash(up + "blobs/" + f.Blob())
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return cacheError(err)
	}
	for {
		err := os.Symlink(target, at)
		if !errors.Is(err, fs.ErrExist) {
			return cacheError(err)
		}
		if old, err := os.Readlink(at); err == nil && old == target {
			return nil // another program was faster
		}
		if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return cacheError(err)
		}
	}
}

// setRef records which commit the revision is. It comes last: whoever finds the name finds the files.
func (k cache) setRef(revision, commit string) error {
	if revision == commit {
		return nil
	}
	path := k.ref(revision)
	if old, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(old)) == commit {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return cacheError(err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".ref-*")
	if err != nil {
		return cacheError(err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(commit)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return cacheError(err)
	}
	return cacheError(os.Rename(tmp.Name(), path))
}

// cached returns what the cache holds of the revision.
func (c *Client) cached(id, revision string) (Repo, error) {
	k := c.cache(id)
	repo := Repo{ID: id, Revision: revision, Commit: revision}
	if ref, err := os.ReadFile(k.ref(revision)); err == nil {
		repo.Commit = strings.TrimSpace(string(ref))
	}
	missing := fmt.Errorf("%w: %s at revision %q is not in %s; unset HF_HUB_OFFLINE to download it", ErrOffline, id, revision, c.cfg.CacheDir)
	if !hex40.MatchString(repo.Commit) {
		return Repo{}, missing
	}
	root := k.snapshot(repo.Commit)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := os.Stat(path)
		if err != nil || !st.Mode().IsRegular() {
			return nil // a link whose blob is gone: the selection says what is missing
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f := File{Path: filepath.ToSlash(name), Size: st.Size()}
		target, _ := os.Readlink(path)
		switch blob := filepath.Base(target); {
		case hex64.MatchString(blob):
			f.SHA256 = blob
		case hex40.MatchString(blob):
			f.GitSHA1 = blob
		default:
			f.ETag = blob
		}
		repo.Files = append(repo.Files, f)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return Repo{}, missing
	}
	if err != nil {
		return Repo{}, cacheError(err)
	}
	if repo.Files, err = selectBark(id, repo.Files); err != nil {
		return Repo{}, fmt.Errorf("%w: the copy in %s is not complete: %w; unset HF_HUB_OFFLINE to download the rest", ErrOffline, root, err)
	}
	return repo, nil
}

// cacheError says what to do about the failures people meet.
func cacheError(err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("%w for the hub's cache: free some, or set HF_HUB_CACHE to another disk: %w", ErrNoSpace, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the hub's cache cannot be written: set HF_HUB_CACHE to a folder of yours: %w", err)
	}
	return fmt.Errorf("hub cache: %w", err)
}
